//! A configuration: it is refused with a line, or its budget and its limits can be told.

use larder::config::Config;
use larder::{budget, cli};
use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

const MACHINE_MEMORY: u64 = 1 << 30;

pub(crate) fn configuration(input: &[u8]) {
    thread_local! {
        static FILE: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
    }
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| {
            let name = format!("larder-fuzz-{}.toml", std::process::id());
            super::stored::place().join(name)
        });
        fs::write(&*file, input).unwrap();
        match Config::load(file, MACHINE_MEMORY) {
            Ok(config) => {
                let rows = budget::table(&config);
                let mut told = Vec::new();
                cli::check::print(&mut told, &config, &rows).unwrap();
                assert!(!told.is_empty());
                let _ = cli::run::limits(&config);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        fs::remove_file(file).unwrap();
    });
}
