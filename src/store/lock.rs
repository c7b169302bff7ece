//! One process has a data directory at a time.
//!
//! The lock is on an open file, not in its content: it goes with the process, however that ends.

use super::OpenError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Held while this lives.
#[derive(Debug)]
pub(super) struct Lock {
    /// Closing it releases the lock. The file stays: removing it would let two processes lock two files of one name.
    _file: File,
}

impl Lock {
    /// Takes `data_dir` for this process and writes its process id into `larder.lock`.
    ///
    /// # Errors
    /// [`OpenError::DataDir`] if the directory is missing or read-only, [`OpenError::Locked`] if another process has it.
    pub(super) fn take(data_dir: &Path) -> Result<Lock, OpenError> {
        let path = data_dir.join("larder.lock");
        let unusable = |source| OpenError::DataDir {
            path: data_dir.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(OpenError::Locked {
                    path,
                    holder: holder.trim().to_owned(),
                });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(unusable)?;
        Ok(Lock { _file: file })
    }
}
