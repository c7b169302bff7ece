//! Tests that need a process of their own: the test program starts itself with the name of one test. Such a test does
//! nothing where the mark is not set.

use std::ffi::OsString;
use std::process::{Child, Command, Stdio};

/// Set for a child, to its argument.
pub(crate) const MARK: &str = "LARDER_NET_TEST_CHILD";

/// A child says this last: that it merely ended well may mean that it never ran.
const DONE: &str = "the child has done all";

/// Runs one test of this program in a process of its own.
pub(crate) fn run(test: &str) {
    let mut command = command(test);
    command.env(MARK, "");
    spawn(command).finish();
}

/// The command line for one test of this program; `MARK` is still to be set.
pub(crate) fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

pub(crate) struct Running(Child);

pub(crate) fn spawn(mut command: Command) -> Running {
    Running(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    )
}

impl Running {
    /// Waits for its end, and for its word that it has done all.
    pub(crate) fn finish(self) {
        let output = self.0.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains(DONE),
            "{}: {said}{complaint}",
            output.status
        );
    }
}

/// The child's argument; `None` in any other process.
pub(crate) fn argument() -> Option<OsString> {
    std::env::var_os(MARK)
}

pub(crate) fn done() {
    println!("{DONE}");
}
