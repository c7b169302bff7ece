//! What the command line asks the machine: how much memory it has, and where data may be kept.

use rustix::fs::{Access, access};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of memory of the machine. Where the kernel does not say, that of the smallest machine that Larder is for.
pub(super) fn memory() -> u64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| memory_total(&text))
        .unwrap_or(SMALLEST_MACHINE_BYTES)
}

/// Where data is kept if neither a configuration nor the command line says: systemd's `STATE_DIRECTORY`, the system's
/// place if it can be written, the user's own. `None` if there is no such place.
pub(super) fn data_dir() -> Option<PathBuf> {
    choose_data_dir(
        |name| env::var_os(name),
        |path| access(path, Access::WRITE_OK).is_ok(),
    )
}

const SMALLEST_MACHINE_BYTES: u64 = 64 << 20;
const SYSTEM_DIR: &str = "/var/lib/larder";

/// proc_meminfo(5): `MemTotal:       16384256 kB`, where kB are 1,024 bytes.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn choose_data_dir(
    variable: impl Fn(&str) -> Option<OsString>,
    can_write: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(directories) = set("STATE_DIRECTORY") {
        // systemd.exec(5): several are separated by colons.
        let first = directories.as_bytes().split(|byte| *byte == b':').next()?;
        return Some(OsStr::from_bytes(first).into());
    }
    let system = Path::new(SYSTEM_DIR);
    if can_write(system) || system.parent().is_some_and(can_write) {
        return Some(system.to_owned());
    }
    if let Some(state) = set("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
    {
        return Some(state.join("larder"));
    }
    set("HOME").map(|home| Path::new(&home).join(".local/state/larder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_machine() {
        assert_eq!(
            memory_total("MemTotal:       16384256 kB\nMemFree: 1 kB\n"),
            Some(16_384_256 * 1024)
        );
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert_eq!(memory_total("MemTotal: many kB\n"), None);
    }

    #[test]
    fn data_goes_where_it_can() {
        let chosen = |variables: &[(&str, &str)], writable: &str| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            choose_data_dir(variable, |path| path == Path::new(writable))
        };
        let home = ("HOME", "/home/me");
        let to = |path: &str| Some(PathBuf::from(path));
        assert_eq!(
            chosen(&[("STATE_DIRECTORY", "/s/larder:/s/b"), home], "/var/lib"),
            to("/s/larder")
        );
        assert_eq!(
            chosen(&[("STATE_DIRECTORY", ""), home], "/var/lib"),
            to("/var/lib/larder")
        );
        assert_eq!(chosen(&[home], "/var/lib/larder"), to("/var/lib/larder"));
        assert_eq!(
            chosen(&[home, ("XDG_STATE_HOME", "/x")], ""),
            to("/x/larder")
        );
        assert_eq!(
            chosen(&[home, ("XDG_STATE_HOME", "relative")], ""),
            to("/home/me/.local/state/larder")
        );
        assert_eq!(chosen(&[], ""), None);
    }
}
