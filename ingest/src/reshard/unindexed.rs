use std::collections::VecDeque;

use bytes::Bytes;
use fastclip_shards::tar::{Entry, StreamScanner, split_name};
use fastclip_shards::{Compression, SampleGrouper, Store, StoreError};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::input::waited;
use crate::pack::PackError;

/// Extension and data of each member.
type Members = Vec<(String, Vec<u8>)>;

/// The samples of a tar without an index, read as a stream: name and members. Memory holds a piece of the stream and what it
/// completes.
pub(super) struct UnindexedSamples {
    store: Store,
    name: String,
    pieces: Option<BoxStream<'static, Result<Bytes, StoreError>>>,
    scanner: Option<StreamScanner>,
    grouper: SampleGrouper,
    open: Members,
    ready: VecDeque<(String, Members)>,
    failed: Option<PackError>,
}

impl UnindexedSamples {
    pub(super) fn new(store: Store, name: String) -> Self {
        Self {
            store,
            name,
            pieces: None,
            scanner: Some(StreamScanner::new()),
            grouper: SampleGrouper::default(),
            open: Vec::new(),
            ready: VecDeque::new(),
            failed: None,
        }
    }

    /// Takes the next piece, or what comes after the last one.
    fn advance(&mut self) -> Result<(), PackError> {
        let Some(mut scanner) = self.scanner.take() else { return Ok(()) };
        let piece = self.next_piece()?;
        let damaged = |source| PackError::Damaged { shard: self.name.clone(), source };
        let Some(piece) = piece else {
            scanner.finish().map_err(damaged)?;
            self.close_last();
            return Ok(());
        };
        let (grouper, open, ready, name) = (&mut self.grouper, &mut self.open, &mut self.ready, &self.name);
        let pushed = scanner.push(&piece, is_member, |entry, data| {
            if let Some(span) = grouper.add(entry) {
                ready.push_back((format!("{name}/{}", span.key), std::mem::take(open)));
            }
            if let (Some((_, extension)), Some(data)) = (split_name(&entry.name), data) {
                open.push((extension, data.to_vec()));
            }
        });
        pushed.map_err(|source| PackError::Damaged { shard: self.name.clone(), source })?;
        self.scanner = Some(scanner);
        Ok(())
    }

    fn close_last(&mut self) {
        if let Some(span) = std::mem::take(&mut self.grouper).finish() {
            let members = std::mem::take(&mut self.open);
            self.ready.push_back((format!("{}/{}", self.name, span.key), members));
        }
    }

    fn next_piece(&mut self) -> Result<Option<Bytes>, PackError> {
        let failed = |source| PackError::Store { location: self.name.clone(), source };
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces,
            None => {
                let pieces = waited(&self.name, self.store.stream(&self.name))?.map_err(failed)?;
                self.pieces.insert(match Compression::of(&self.name) {
                    None => pieces,
                    Some(compression) => compression.decompress(pieces.boxed()),
                })
            }
        };
        waited(&self.name, pieces.try_next())?.map_err(failed)
    }
}

impl Iterator for UnindexedSamples {
    type Item = Result<(String, Members), PackError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(sample) = self.ready.pop_front() {
                return Some(Ok(sample));
            }
            if let Some(error) = self.failed.take() {
                return Some(Err(error));
            }
            self.scanner.as_ref()?;
            // What was complete before the damage comes first.
            self.failed = self.advance().err();
        }
    }
}

fn is_member(entry: &Entry) -> bool {
    entry.is_file && split_name(&entry.name).is_some()
}
