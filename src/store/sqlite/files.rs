//! The files of a database, and how a new one is made: whole and on disk before it has its name, so that a power cut
//! leaves all of it there or nothing.

use super::{Fault, connect};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What the name of a new file ends in until it is complete.
const NEW: &str = ".new";

/// Creates the database at `path` unless there is one.
///
/// SQLite itself would do it in several transactions, of which the first has not the marks yet by which the file is
/// known as Larder's.
pub(super) fn create_if_missing(path: &Path) -> Result<(), Fault> {
    if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    let new = with_suffix(path, NEW);
    remove(&new)?;
    connect(&new)?.close().map_err(|(_, error)| error)?;
    // What stands beside a file that is not there, or is empty, is nobody's log.
    remove(path)?;
    sync_directory(path)?;
    fs::rename(&new, path)?;
    sync_directory(path)?;
    Ok(())
}

/// Removes a database and its logs.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        unless_missing(fs::remove_file(with_suffix(path, suffix)))?;
    }
    Ok(())
}

pub(super) fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the names in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
