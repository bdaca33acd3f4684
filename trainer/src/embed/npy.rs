//! Matrices in NumPy's format.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes before the values; room for any number of rows, which is known only at the end.
const HEADER_BYTES: usize = 128;

/// Writes a matrix of `f32` row by row. It appears under its name when it is complete.
#[derive(Debug)]
pub(super) struct NpyWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    width: usize,
    num_rows: u64,
}

impl NpyWriter {
    pub(super) fn create(path: &Path, width: usize) -> io::Result<Self> {
        let partial = path.with_extension("npy.partial");
        let mut file = BufWriter::new(File::create(&partial)?);
        file.write_all(&header(0, width))?;
        Ok(Self { path: path.to_owned(), partial, file, width, num_rows: 0 })
    }

    /// Adds rows that lie one behind the other.
    pub(super) fn append(&mut self, rows: &[f32]) -> io::Result<()> {
        for value in rows {
            self.file.write_all(&value.to_le_bytes())?;
        }
        self.num_rows += (rows.len() / self.width) as u64;
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<()> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header(self.num_rows, self.width))?;
        file.sync_all()?;
        std::fs::rename(&self.partial, &self.path)
    }
}

fn header(num_rows: u64, width: usize) -> [u8; HEADER_BYTES] {
    let mut header = [b' '; HEADER_BYTES];
    let described = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_rows}, {width}), }}");
    header[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    header[8..10].copy_from_slice(&((HEADER_BYTES - 10) as u16).to_le_bytes());
    // At most 90 letters, with the longest numbers that there are.
    header[10..10 + described.len()].copy_from_slice(described.as_bytes());
    header[HEADER_BYTES - 1] = b'\n';
    header
}
