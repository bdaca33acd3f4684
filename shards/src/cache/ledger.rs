use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Begins the file; the digit is the version of the folder's layout.
const MAGIC: &[u8; 8] = b"FCCACHE1";
/// Between two tries to lock. Locks are held for microseconds, except by who removes old entries.
const PAUSE: Duration = Duration::from_millis(1);

/// The file that marks a folder as a cache, is its lock, and holds the size of all its entries.
///
/// The size may be too large, never too small: it grows before an entry appears, and is corrected whenever entries are
/// counted anew. An entry that somebody removes is thus counted until then.
#[derive(Debug)]
pub(super) struct Ledger(File);

impl Ledger {
    /// Makes the file if it is not there.
    pub(super) fn create(path: &Path) -> io::Result<()> {
        OpenOptions::new().create(true).append(true).open(path).map(drop)
    }

    /// Whether the file is there, and marks a folder of our layout. One that was just made is empty.
    pub(super) fn is_at(path: &Path) -> io::Result<bool> {
        match File::open(path) {
            Ok(file) => {
                let mut start = Vec::new();
                file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
                Ok(start.is_empty() || start == MAGIC)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Locks it until it is dropped; nothing when that takes longer than one is ready to wait.
    pub(super) fn lock(path: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if start.elapsed() >= patience => return Ok(None),
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Size of all entries, if it was ever counted.
    pub(super) fn total(&mut self) -> io::Result<Option<u64>> {
        let mut bytes = Vec::with_capacity(16);
        self.0.seek(SeekFrom::Start(0))?;
        Read::by_ref(&mut self.0).take(16).read_to_end(&mut bytes)?;
        let total = bytes.strip_prefix(MAGIC).and_then(|rest| rest.try_into().ok());
        Ok(total.map(u64::from_le_bytes))
    }

    pub(super) fn set_total(&mut self, total: u64) -> io::Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..].copy_from_slice(&total.to_le_bytes());
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(&bytes)
    }
}
