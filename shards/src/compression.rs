use std::io;

use async_compression::futures::bufread::{GzipDecoder, ZstdDecoder};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{AsyncRead, AsyncReadExt, StreamExt, TryStreamExt};

use crate::store::StoreError;

/// Bytes that are decompressed at a time.
const PIECE_BYTES: usize = 256 << 10;

/// How a shard is compressed as a whole, which its name tells.
///
/// A compressed shard has no places: what lies in its middle is reached by decompressing all that precedes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `.tar.gz`, `.tgz`.
    Gzip,
    /// `.tar.zst`.
    Zstd,
}

impl Compression {
    /// The compression of a shard of this name; nothing if it is a plain tar.
    pub fn of(name: &str) -> Option<Self> {
        let ends_with = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        if ends_with(&[".tar.gz", ".tgz"]) {
            return Some(Self::Gzip);
        }
        ends_with(&[".tar.zst"]).then_some(Self::Zstd)
    }

    /// Memory that a decoder takes at most, in bytes: of gzip the 32 KiB that it looks back and tables; of Zstandard a
    /// window of 128 MiB, which `--ultra -22` and `--long` write and beyond which its decoder refuses, where up to `-19` it is 8.
    pub fn max_memory(self) -> u64 {
        match self {
            Self::Gzip => 1 << 20,
            Self::Zstd => (128 + 1) << 20,
        }
    }

    /// Whether a name is that of a shard, plain or compressed.
    pub fn is_shard_name(name: &str) -> bool {
        name.ends_with(".tar") || Self::of(name).is_some()
    }

    /// Decompresses a stream. Files of several members or frames, as parallel compressors write them, are read to their
    /// end.
    ///
    /// The stream ends at the first error. Damage has the kind [`StoreErrorKind::Damaged`](crate::StoreErrorKind).
    pub fn decompress(
        self,
        pieces: BoxStream<'static, Result<Bytes, StoreError>>,
    ) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let compressed = pieces.map_err(io::Error::other).into_async_read();
        match self {
            Self::Gzip => {
                let mut decoder = GzipDecoder::new(compressed);
                decoder.multiple_members(true);
                in_pieces(decoder)
            }
            Self::Zstd => {
                let mut decoder = ZstdDecoder::new(compressed);
                decoder.multiple_members(true);
                in_pieces(decoder)
            }
        }
    }
}

fn in_pieces(
    decoder: impl AsyncRead + Send + Unpin + 'static,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    stream::try_unfold(decoder, |mut decoder| async move {
        let mut piece = vec![0; PIECE_BYTES];
        let num_bytes = decoder.read(&mut piece).await.map_err(cause)?;
        piece.truncate(num_bytes);
        Ok((num_bytes > 0).then(|| (Bytes::from(piece), decoder)))
    })
    .boxed()
}

/// What the store said, if it was the store; damage otherwise.
fn cause(error: io::Error) -> StoreError {
    error
        .downcast::<StoreError>()
        .unwrap_or_else(|error| StoreError::damaged(format!("the compressed bytes are damaged: {error}")))
}

#[cfg(test)]
mod tests {
    use async_compression::futures::bufread::{GzipEncoder, ZstdEncoder};

    use super::*;
    use crate::store::StoreErrorKind;

    async fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut compressed = Vec::new();
        match compression {
            Compression::Gzip => GzipEncoder::new(bytes).read_to_end(&mut compressed).await.unwrap(),
            Compression::Zstd => ZstdEncoder::new(bytes).read_to_end(&mut compressed).await.unwrap(),
        };
        compressed
    }

    async fn decompressed(compression: Compression, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        let pieces: Vec<_> = bytes.chunks(777).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let pieces = compression.decompress(stream::iter(pieces).boxed());
        Ok(pieces.try_collect::<Vec<Bytes>>().await?.concat())
    }

    #[test]
    fn names_tell_the_compression() {
        assert_eq!(Compression::of("a/00000.tar.gz"), Some(Compression::Gzip));
        assert_eq!(Compression::of("x.tgz"), Some(Compression::Gzip));
        assert_eq!(Compression::of("x.tar.zst"), Some(Compression::Zstd));
        assert_eq!(Compression::of("x.tar"), None);
        assert!(Compression::is_shard_name("x.tar") && !Compression::is_shard_name("x.json.gz"));
    }

    #[tokio::test]
    async fn what_was_compressed_comes_back_in_one_member_or_in_several() {
        let bytes: Vec<u8> = (0..600_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let (whole, again) =
                (compressed(compression, &bytes).await, compressed(compression, b"end").await);
            assert_eq!(decompressed(compression, &whole).await.unwrap(), bytes);
            let both = decompressed(compression, &[whole, again].concat()).await.unwrap();
            assert_eq!(both, [&bytes[..], b"end"].concat());
        }
    }

    #[tokio::test]
    async fn damage_and_a_store_that_fails_are_told_apart() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let whole = compressed(compression, &[7; 5000]).await;
            let error = decompressed(compression, &whole[..whole.len() / 2]).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Damaged, "{error}");
            let failing = stream::iter([Err(StoreError::location("gone"))]).boxed();
            let error = compression.decompress(failing).try_collect::<Vec<_>>().await.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (StoreErrorKind::Location, "gone"));
        }
    }
}
