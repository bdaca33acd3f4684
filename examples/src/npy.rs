use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

/// Bytes that a header is filled up to, so that the data begins at a good address.
const HEADER_BYTES: usize = 128;
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// An array that NumPy reads, written piece by piece.
#[derive(Debug)]
pub struct NpyFile(BufWriter<File>);

impl NpyFile {
    /// Begins an array of a NumPy type such as `<i4`. How many bytes follow is up to the caller.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, kind: &str, shape: &[usize]) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("could not create `{}`", path.display()))?;
        let shape: String = shape.iter().map(|length| format!("{length}, ")).collect();
        let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
        // Magic, the length of what follows it, the text, spaces, and a new line.
        let room = HEADER_BYTES - MAGIC.len() - 2;
        anyhow::ensure!(text.len() < room, "the header of `{}` is too long: {text}", path.display());
        let mut writer = BufWriter::new(file);
        writer.write_all(MAGIC)?;
        writer.write_all(&(room as u16).to_le_bytes())?;
        writeln!(writer, "{text:width$}", width = room - 1)?;
        Ok(Self(writer))
    }

    /// Appends values in the order of their bytes that the type says.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.0.write_all(bytes)?)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}
