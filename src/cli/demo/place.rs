//! The temporary directory.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory for one run. Removed when dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    keep: bool,
}

impl Place {
    /// Makes one that only this user can look into.
    pub(super) fn make(run: &str) -> io::Result<Place> {
        let path = parent().join(format!("larder-demo-{run}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        Ok(Place { path, keep: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets it stay, to be looked at.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// The last lines of every log in it, each with the log's name.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let mut logs: Vec<PathBuf> = fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        let mut lines = Vec::new();
        for log in logs {
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let all: Vec<&str> = text.lines().collect();
            let last = &all[all.len().saturating_sub(count)..];
            lines.extend(last.iter().map(|line| format!("{name}: {line}")));
        }
        lines
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            // Nobody is left who could do more than the system's own cleaning.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// `$TMPDIR`, else `/var/tmp`: `/tmp` is in memory on many systems, and this is about a disk.
fn parent() -> PathBuf {
    let durable = Path::new("/var/tmp");
    if env::var_os("TMPDIR").is_none() && durable.is_dir() {
        return durable.to_owned();
    }
    env::temp_dir()
}
