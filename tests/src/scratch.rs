//! Temporary directory for a test's files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// New directory under the system's temporary directory. Dropping this value removes it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates the directory.
    pub fn new() -> std::io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("nobat-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it cannot be removed, the system's cleanup has to do so.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
