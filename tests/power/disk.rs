//! A disk with a plug: ext4 in a file, whose shutdown leaves on it what was synchronised, and what else the kernel
//! happened to write.

use crate::broker::Directory;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const IMAGE_BYTES: u64 = 96 << 20;

/// Opens the directory, and pulls the plug at a word: EXT4_IOC_SHUTDOWN without flushing the journal.
const PLUG: &str = "
import fcntl, os, struct, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
sys.stdin.readline()
fcntl.ioctl(directory, 0x8004587d, struct.pack('I', 2))
print('cut', flush=True)
";

pub(crate) struct Disk {
    /// The image and the place where it is mounted.
    directory: Directory,
    plug: Option<Plug>,
}

struct Plug {
    child: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Disk {
    /// An empty one, mounted.
    pub(crate) fn new() -> Disk {
        let directory = Directory::new();
        let image = directory.join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(IMAGE_BYTES).unwrap();
        std::fs::create_dir(directory.join("mounted")).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let mut disk = Disk {
            directory,
            plug: None,
        };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("mounted")
    }

    /// Gives it another name.
    pub(crate) fn serve(&self, name: &Path) {
        symlink(self.path(), name).unwrap();
    }

    /// The power goes.
    pub(crate) fn cut(&mut self) {
        let mut plug = self.plug.take().expect("it has been restored");
        let stdin = plug.child.stdin.as_mut().unwrap();
        stdin.write_all(b"cut\n").unwrap();
        plug.expect("cut");
        plug.child.wait().unwrap();
    }

    /// The power is back. Nobody may have a file of it open.
    pub(crate) fn restore(&mut self) {
        run(Command::new("umount").arg(self.path()));
        self.mount();
    }

    fn mount(&mut self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,noatime"]);
        run(mount.arg(self.directory.join("image")).arg(self.path()));
        let mut child = Command::new("python3")
            .args(["-c", PLUG])
            .arg(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("python3: {error}; run `tests/setup power`"));
        let says = BufReader::new(child.stdout.take().unwrap());
        let plug = self.plug.insert(Plug { child, says });
        plug.expect("ready");
    }
}

impl Plug {
    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word, "the plug does not work");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(mut plug) = self.plug.take() {
            let _ = plug.child.kill();
            let _ = plug.child.wait();
        }
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output();
    let output =
        output.unwrap_or_else(|error| panic!("{command:?}: {error}; run `tests/setup power`"));
    assert!(
        output.status.success(),
        "{command:?}: {}(this group needs root, loop devices and ext4)",
        String::from_utf8_lossy(&output.stderr)
    );
}
