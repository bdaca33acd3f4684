//! Files of this machine, piece by piece.
//!
//! The client of stores reads them 8 KiB at a time, each time on another thread, which costs more than the bytes do.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::{GetResult, GetResultPayload};
use tokio::task::spawn_blocking;

use super::pieces::for_each_piece;
use super::{StoreError, StoreErrorKind};

/// Bytes of a piece that is handed on.
const PIECE_BYTES: u64 = 1 << 20;

/// The pieces of what a store answered.
pub(super) fn pieces(answer: GetResult) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let range = answer.range.clone();
    match answer.payload {
        GetResultPayload::File(file, _) => of_file(file, range),
        GetResultPayload::Stream(pieces) => pieces.map_err(StoreError::from).boxed(),
    }
}

fn of_file(file: File, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let read = |(mut file, range): (File, Range<u64>)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let read = spawn_blocking(move || {
            let mut piece = Vec::new();
            let num_bytes =
                read_piece(&mut file, range.start, PIECE_BYTES.min(range.end - range.start), &mut piece)?;
            Ok((num_bytes > 0).then(|| (Bytes::from(piece), (file, range.start + num_bytes..range.end))))
        });
        read.await.expect("reading neither panics nor is cancelled").map_err(failed)
    };
    stream::try_unfold((file, range), read).boxed()
}

/// Gives what a store answered to `take`, one piece after the other. Of a file all pieces are read into one buffer, on a
/// thread that may wait for the disk.
pub(super) async fn fold<T: Send + 'static>(
    answer: GetResult,
    mut state: T,
    mut take: impl FnMut(&mut T, &[u8]) + Send + 'static,
) -> Result<T, StoreError> {
    let range = answer.range.clone();
    let file = match answer.payload {
        GetResultPayload::File(file, _) => file,
        GetResultPayload::Stream(mut pieces) => {
            while let Some(piece) = pieces.try_next().await? {
                take(&mut state, &piece);
            }
            return Ok(state);
        }
    };
    let read = spawn_blocking(move || {
        for_each_piece(&file, range, |piece| take(&mut state, piece))?;
        Ok(state)
    });
    read.await.expect("reading panics no more than who takes it does").map_err(failed)
}

/// Reads so many bytes, or as many as there are.
fn read_piece(file: &mut File, at: u64, num_bytes: u64, piece: &mut Vec<u8>) -> io::Result<u64> {
    piece.clear();
    piece.reserve_exact(num_bytes as usize);
    file.seek(SeekFrom::Start(at))?;
    Ok(file.take(num_bytes).read_to_end(piece)? as u64)
}

fn failed(error: io::Error) -> StoreError {
    StoreError { kind: StoreErrorKind::Other, message: format!("the file cannot be read: {error}") }
}
