//! A memory cgroup (v1) for one process.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

const ROOT: &str = "/sys/fs/cgroup/memory";

pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// One that is limited to so many bytes.
    pub(crate) fn new(bytes: u64) -> Cgroup {
        let path = PathBuf::from(format!("{ROOT}/larder-{}", std::process::id()));
        let made = fs::create_dir(&path)
            .and_then(|()| fs::write(path.join("memory.limit_in_bytes"), bytes.to_string()));
        made.unwrap_or_else(|error| {
            panic!(
                "{}: {error} (this group needs root and cgroup v1)",
                path.display()
            )
        });
        Cgroup(path)
    }

    /// A command that runs another one in it.
    pub(crate) fn wrapper(&self) -> Vec<OsString> {
        let mut procs = self.0.clone().into_os_string();
        procs.push("/cgroup.procs");
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        vec!["sh".into(), "-c".into(), script.into(), procs]
    }

    /// The most that it took, in bytes: what the system keeps of files is part of it.
    pub(crate) fn peak(&self) -> u64 {
        self.figure("memory.max_usage_in_bytes", "")
    }

    /// Processes killed for want of memory.
    pub(crate) fn kills(&self) -> u64 {
        self.figure("memory.oom_control", "oom_kill ")
    }

    fn figure(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).unwrap();
        let mut figures = text.lines().filter_map(|line| line.strip_prefix(name));
        figures.next().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Refused while a process is in it; nothing depends on it.
        let _ = fs::remove_dir(&self.0);
    }
}
