//! Files of object stores for readers that block, as those of text and parquet do.
//!
//! A file is read in ranges of a few MiB. One request for all of it would be open for as long as the rows take, which may be
//! days, and neither stores nor clients keep connections for that long.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use fastclip_shards::{Store, StoreError};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::runtime::wait_for;

/// Memory for blocks of a file, as far as its readers are few.
const CACHED_BYTES: u64 = 64 << 20;

/// Bounds of a block: below, requests cost more than what they bring; above, nothing gets faster.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = (256 << 10)..=(4 << 20);

/// A file in a store. Clones share the blocks that were read last.
#[derive(Debug, Clone)]
pub(super) struct StoredFile {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    name: String,
    num_bytes: u64,
    block_bytes: u64,
    max_blocks: usize,
    /// Number and content, the most recently used last.
    blocks: Mutex<VecDeque<(u64, Bytes)>>,
}

impl StoredFile {
    /// Asks for the size. Blocks are kept for as many places as it will be read at, in turn.
    pub(super) fn open(store: Store, name: String, num_places: usize) -> Result<Self, StoreError> {
        let num_bytes = wait_for(store.num_bytes(&name)).unwrap_or_else(|error| Err(error.into()))?;
        let max_blocks = num_places + 1;
        let block_bytes = (CACHED_BYTES / max_blocks as u64).clamp(*BLOCK_BYTES.start(), *BLOCK_BYTES.end());
        let blocks = Mutex::new(VecDeque::new());
        let shared = Shared { store, name, num_bytes, block_bytes, max_blocks, blocks };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn num_bytes(&self) -> u64 {
        self.shared.num_bytes
    }

    pub(super) fn reader(&self, position: u64) -> StoredReader {
        StoredReader { file: self.clone(), position }
    }

    /// What lies from `position` to the end of its block. Empty at the end of the file.
    fn read_from(&self, position: u64) -> Result<Bytes, StoreError> {
        let Shared { store, name, num_bytes, block_bytes, max_blocks, blocks } = &*self.shared;
        if position >= *num_bytes {
            return Ok(Bytes::new());
        }
        let number = position / block_bytes;
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let block = match blocks.iter().position(|(cached, _)| *cached == number) {
            Some(at) => blocks.remove(at).expect("it was just found").1,
            None => {
                let start = number * block_bytes;
                let end = num_bytes.min(&(start + block_bytes)).to_owned();
                let block = wait_for(store.get_range(name, start..end));
                let block = block.unwrap_or_else(|error| Err(error.into()))?;
                if block.len() as u64 != end - start {
                    let message = format!("{} bytes came of {}", block.len(), end - start);
                    return Err(io::Error::other(message).into());
                }
                block
            }
        };
        blocks.push_back((number, block.clone()));
        if blocks.len() > *max_blocks {
            blocks.pop_front();
        }
        Ok(block.slice((position - number * block_bytes) as usize..))
    }
}

/// Reads a stored file from some place on.
#[derive(Debug)]
pub(super) struct StoredReader {
    file: StoredFile,
    position: u64,
}

impl Read for StoredReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_from(self.position).map_err(io::Error::other)?;
        let num_bytes = bytes.len().min(buffer.len());
        buffer[..num_bytes].copy_from_slice(&bytes[..num_bytes]);
        self.position += num_bytes as u64;
        Ok(num_bytes)
    }
}

impl Length for StoredFile {
    fn len(&self) -> u64 {
        self.num_bytes()
    }
}

impl ChunkReader for StoredFile {
    type T = StoredReader;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.reader(start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let failed = |error: StoreError| ParquetError::External(Box::new(error));
        let first = self.read_from(start).map_err(failed)?;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut bytes = BytesMut::with_capacity(length);
        bytes.extend_from_slice(&first);
        while bytes.len() < length {
            let next = self.read_from(start + bytes.len() as u64).map_err(failed)?;
            if next.is_empty() {
                return Err(ParquetError::EOF(format!(
                    "the file ends before byte {}",
                    start + length as u64
                )));
            }
            bytes.extend_from_slice(&next[..next.len().min(length - bytes.len())]);
        }
        Ok(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn blocks_of_a_stored_file_add_up_to_it() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect();
        let store = Store::from_object_store(Arc::new(InMemory::new()), "a").unwrap();
        wait_for(store.put("list", bytes.clone())).unwrap().unwrap();
        // So many places that blocks are as small as they get.
        let file = StoredFile::open(store, "list".to_owned(), 1000).unwrap();
        assert_eq!(file.shared.block_bytes, *BLOCK_BYTES.start());
        let mut read = Vec::new();
        file.reader(7).read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes[7..]);
        assert_eq!(file.get_bytes(200_000, 700_000).unwrap(), bytes[200_000..900_000]);
        assert!(matches!(file.get_bytes(2_999_999, 2), Err(ParquetError::EOF(_))));
    }

    #[test]
    fn no_more_blocks_are_kept_than_there_are_places() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "").unwrap();
        wait_for(store.put("list", vec![1; 20 << 20])).unwrap().unwrap();
        let file = StoredFile::open(store, "list".to_owned(), 2).unwrap();
        assert_eq!(io::copy(&mut file.reader(0), &mut io::sink()).unwrap(), 20 << 20);
        assert_eq!(file.shared.blocks.lock().unwrap().len(), 3);
    }
}
