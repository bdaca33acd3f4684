use std::cell::RefCell;
use std::sync::LazyLock;

use fastclip_images::{DecodeOptions, ImageDecoder, Part, RgbImage};
use fastclip_loader::{Augmentation, CaptionSource, ImageTransformer, Tokenizer, Transform};
use fastclip_schemas::{Manifest, SampleId};
use fastclip_shards::ShardIndex;
use fastclip_shards::tar::{BLOCK_BYTES, Entry, Salvaged, Salvager, Scanner, StreamScanner, split_name};
use turbojpeg::{Colorspace, PixelFormat};
use xxhash_rust::xxh3::xxh3_64;

use crate::seeds;

const CONTEXT_LENGTH: usize = 77;
/// Small, so that a header that lies is refused instead of costing seconds.
const MAX_PIXELS: u64 = 1 << 18;

/// A reader of bytes that come from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The three scanners of tars, which must agree on what is sound.
    Tar,
    /// The manifest, which must be what it was when written and read again.
    Manifest,
    /// The index of a shard, of which every byte counts. With an odd first byte its checksum is made right.
    Index,
    /// Images of all formats, and what becomes of them. The first byte chooses options, the second which part is decoded besides,
    /// and at which size. What TurboJPEG decodes without a complaint must have its pixels, and a part those of the whole.
    Image,
    /// Captions.
    Caption,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Tar, Self::Manifest, Self::Index, Self::Image, Self::Caption];

    /// What its program and corpus are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::Image => "image",
            Self::Caption => "caption",
        }
    }

    /// Sound bytes to begin with.
    pub fn seeds(self) -> Vec<Vec<u8>> {
        match self {
            Self::Tar => seeds::tars(),
            Self::Manifest => seeds::manifests(),
            Self::Index => seeds::indexes(),
            Self::Image => seeds::images(),
            Self::Caption => seeds::captions(),
        }
    }

    /// Has the reader read.
    ///
    /// # Panics
    /// When it breaks a promise.
    pub fn feed(self, bytes: &[u8]) {
        match self {
            Self::Tar => tar(bytes),
            Self::Manifest => manifest(bytes),
            Self::Index => index(bytes),
            Self::Image => image(bytes),
            Self::Caption => caption(bytes),
        }
    }
}

fn tar(bytes: &[u8]) {
    let whole = Scanner::new(bytes);
    let mut scanned: Vec<Entry> = Vec::new();
    let mut is_sound = true;
    for entry in whole {
        match entry {
            Ok(entry) => {
                let start = scanned.last().map_or(0, |before| before.end);
                assert!(
                    start <= entry.start && entry.start < entry.data_start,
                    "{entry:?} begins before {start}"
                );
                assert!(entry.data_start + entry.num_bytes <= entry.end, "{entry:?} ends within its data");
                assert!(entry.end <= bytes.len() as u64, "{entry:?} ends beyond {}", bytes.len());
                split_name(&entry.name);
                scanned.push(entry);
            }
            Err(error) => {
                assert!(error.offset() <= bytes.len() as u64, "{error} lies beyond {}", bytes.len());
                is_sound = false;
            }
        }
    }

    // In pieces that end anywhere, the same members come, up to the first damage.
    let mut streamed = Vec::new();
    let mut stream = StreamScanner::new();
    let size = 1 + usize::from(bytes.first().copied().unwrap_or(0)) * 7;
    let result = bytes.chunks(size).try_for_each(|piece| {
        stream.push(
            piece,
            |entry| entry.num_bytes < 1000,
            |entry, data| {
                if let Some(data) = data {
                    let start = entry.data_start as usize;
                    assert_eq!(data, &bytes[start..start + data.len()], "data of {entry:?}");
                }
                streamed.push(entry.clone());
            },
        )
    });
    assert_eq!(scanned, streamed, "members of a whole tar and of pieces");
    if !is_sound {
        assert!(result.is_err() || stream.finish().is_err(), "damage is seen in pieces, too");
    }

    // What is salvaged covers the bytes, in order, without overlap.
    let mut at = 0;
    for part in Salvager::new(bytes) {
        let part = match part {
            Salvaged::Member(entry) => entry.start..entry.end,
            Salvaged::Damage { bytes, .. } => bytes,
        };
        assert!(part.start == at && part.end > part.start, "{part:?} follows {at}");
        assert!(part.end <= bytes.len() as u64, "{part:?} ends beyond {}", bytes.len());
        at = part.end;
    }
    let rest = &bytes[at as usize..];
    let num_zeros = rest.len().min(BLOCK_BYTES);
    assert!(rest[..num_zeros].iter().all(|&byte| byte == 0), "the bytes from {at} on are in no part");
}

fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::from_json(bytes) else { return };
    let again = Manifest::from_json(&manifest.to_json()).expect("what was written can be read");
    assert_eq!(manifest, again);
}

fn index(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let Some((first, index)) = bytes.split_first_mut() else { return };
    if *first % 2 == 1
        && let Some((body, checksum)) = index.split_last_chunk_mut::<8>()
    {
        *checksum = xxh3_64(body).to_le_bytes();
    }
    let Ok(decoded) = ShardIndex::decode(index) else { return };
    assert_eq!(decoded.encode(), index, "an index says one thing in one way");
    let mut end = 0;
    for sample in 0..decoded.len() {
        let span = decoded.byte_range(sample..sample + 1);
        assert!(end <= span.start && span.start <= span.end, "sample {sample} lies at {span:?}, after {end}");
        decoded.has_key(sample, "key");
        decoded.sample_id(sample);
        end = span.end;
    }
    assert!(end <= decoded.shard_bytes(), "samples end within their shard");
}

fn image(bytes: &[u8]) {
    thread_local! {
        // As on a decoding thread: what one image leaves behind must not matter to the next.
        static DECODERS: RefCell<Vec<ImageDecoder>> = RefCell::new(
            [(false, false), (true, false), (false, true), (true, true)]
                .map(|(keep_truncated, turn_upright)| {
                    let options =
                        DecodeOptions { max_pixels: MAX_PIXELS, keep_truncated, turn_upright, ..DecodeOptions::default() };
                    ImageDecoder::with_options(options).expect("there is memory for a decoder")
                })
                .into(),
        );
    }
    let Some((&[choice, part], bytes)) = bytes.split_first_chunk() else { return };
    DECODERS.with_borrow_mut(|decoders| {
        let decoded = decoders[usize::from(choice % 4)].decode(bytes);
        if choice & 2 == 0 && bytes.starts_with(&[0xff, 0xd8]) {
            compare_with_turbo(bytes, decoded.as_ref().ok().copied());
        }
        let whole = decoded.ok().cloned();
        decode_part(
            &mut decoders[usize::from(choice % 4)],
            bytes,
            part,
            whole.as_ref().filter(|_| choice & 1 == 0),
        );
        let Some(image) = &whole else { return };
        let RgbImage { width, height, pixels } = image;
        assert!(
            u64::from(*width) * u64::from(*height) <= MAX_PIXELS,
            "{width} by {height} pixels were allowed"
        );
        assert_eq!(pixels.len() as u64, u64::from(*width) * u64::from(*height) * 3);
        let transform = if choice & 4 == 0 { Transform::train(16) } else { Transform::eval(16) };
        let mut planes = vec![0; transform.image_bytes()];
        let augmentation = Augmentation { seed: 1, epoch: 2, sample: SampleId(u64::from(choice)) };
        ImageTransformer::new().transform(image, &transform, augmentation, &mut planes);
    });
}

/// Decodes a part as the loader does for a crop, and compares it with the whole image.
fn decode_part(decoder: &mut ImageDecoder, bytes: &[u8], choice: u8, whole: Option<&RgbImage>) {
    let Ok(opened) = decoder.open(bytes) else { return };
    let shrink = if opened.is_scalable() { 1 << (choice & 3) } else { 1 };
    let range = |length: u32, choice: u8| {
        let length = length.div_ceil(shrink);
        let start = length * u32::from(choice & 3) / 4;
        start..(start + length * u32::from(choice >> 2 & 3) / 8).clamp(start + 1, length)
    };
    let (width, height) = opened.size();
    let part = Part { shrink, columns: range(width, choice >> 2), rows: range(height, choice >> 4) };
    let Ok(window) = opened.decode(&part) else { return };
    let row = 3 * window.width as usize;
    assert_eq!(window.bytes.len(), row * window.height as usize);
    assert!(window.left <= part.columns.start && part.columns.end <= window.left + window.width, "{part:?}");
    assert!(window.top <= part.rows.start && part.rows.end <= window.top + window.height, "{part:?}");
    let Some(whole) = whole.filter(|_| shrink == 1) else { return };
    for y in part.rows {
        let of_window = row * (y - window.top) as usize + 3 * (part.columns.start - window.left) as usize;
        let of_whole = 3 * (whole.width as usize * y as usize + part.columns.start as usize);
        let length = 3 * part.columns.len();
        assert!(
            window.bytes[of_window..][..length] == whole.pixels[of_whole..][..length],
            "row {y} of a part is that of the whole"
        );
    }
}

/// What a JPEG was decoded to is what TurboJPEG makes of it, where that is small and without a warning.
fn compare_with_turbo(bytes: &[u8], decoded: Option<&RgbImage>) {
    let Ok(header) = turbojpeg::read_header(bytes) else { return };
    let is_rgb = matches!(header.colorspace, Colorspace::RGB | Colorspace::YCbCr | Colorspace::Gray);
    if !is_rgb || (header.width * header.height) as u64 > MAX_PIXELS {
        return;
    }
    let Ok(expected) = turbojpeg::decompress(bytes, PixelFormat::RGB) else { return };
    // Scans without end are refused, however small they are.
    let Some(decoded) = decoded else { return };
    assert_eq!((decoded.width as usize, decoded.height as usize), (expected.width, expected.height));
    assert!(decoded.pixels == expected.pixels, "a JPEG has TurboJPEG's pixels");
}

fn caption(bytes: &[u8]) {
    static CLIP: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::clip);
    let text = String::from_utf8_lossy(bytes);
    let mut row = [-1; CONTEXT_LENGTH];
    let length = CLIP.encode_into(&text, &mut row);
    assert!((2..=CONTEXT_LENGTH).contains(&length), "{length} tokens");
    assert_eq!((row[0], row[length - 1]), (Tokenizer::START, Tokenizer::END));
    assert!(row[..length].iter().all(|token| (0..Tokenizer::VOCABULARY as i32).contains(token)), "{row:?}");
    assert!(row[length..].iter().all(|&token| token == 0), "{row:?}");
    // A shorter row is the beginning of a longer one.
    let short = CLIP.encode(&text, 8);
    let shared = length.min(8) - 1;
    assert_eq!(short[..shared], row[..shared]);
    let source: CaptionSource = text.parse().expect("any text is a source");
    assert_eq!(source.to_string(), text);
}
