//! Sound bytes, from which damage starts.

use std::collections::BTreeMap;
use std::io::Cursor;

use fastclip_schemas::{Digest, MANIFEST_FORMAT_VERSION, Manifest, SampleId, ShardEntry};
use fastclip_shards::IndexBuilder;
use fastclip_shards::tar::{append_end, append_member};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

const EXPECTED: &str = "what is made here is sound";

pub(crate) fn tars() -> Vec<Vec<u8>> {
    let members: [&[(&str, usize)]; 3] =
        [&[], &[("0.jpg", 700), ("0.txt", 30), ("1.jpg", 512), ("1.txt", 0)], &[("folder/a.b.cls", 1)]];
    members
        .into_iter()
        .map(|members| {
            let mut tar = Vec::new();
            for (name, num_bytes) in members {
                append_member(&mut tar, name, &vec![b'x'; *num_bytes]).expect(EXPECTED);
            }
            let num_bytes = tar.len() as u64;
            append_end(&mut tar, num_bytes);
            tar
        })
        .collect()
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    let shard = |number: u64, num_samples: u32| ShardEntry {
        name: format!("{number:05}.tar"),
        index: format!("{number:05}.idx"),
        num_samples,
        num_bytes: 4096,
        digest: Digest([number as u8; 32]),
        index_digest: Digest([7; 32]),
        first_sample_id: SampleId(number * 10),
    };
    [vec![], vec![shard(0, 10)], vec![shard(0, 10), shard(1, 10), shard(2, 3)]]
        .into_iter()
        .map(|shards| {
            let num_samples = shards.iter().map(|shard| u64::from(shard.num_samples)).sum();
            let manifest = Manifest {
                format_version: MANIFEST_FORMAT_VERSION,
                created_by: "fuzz".to_owned(),
                num_samples,
                num_sample_ids: num_samples,
                shards,
                source: BTreeMap::new(),
            };
            manifest.to_json()
        })
        .collect()
}

pub(crate) fn indexes() -> Vec<Vec<u8>> {
    let index = |num_samples: u64| {
        let mut builder = IndexBuilder::default();
        for sample in 0..num_samples {
            assert!(
                builder.push(SampleId(sample), &format!("{sample:05}"), sample * 2048..sample * 2048 + 1536),
                "{EXPECTED}"
            );
        }
        builder.finish(num_samples * 2048 + 1024).encode()
    };
    // The first byte is the target's: whether the checksum is made right.
    (0..2).flat_map(|first| [1, 4].map(|num_samples| [vec![first], index(num_samples)].concat())).collect()
}

pub(crate) fn images() -> Vec<Vec<u8>> {
    let picture =
        RgbaImage::from_fn(97, 53, |x, y| Rgba([(x * 6) as u8, (y * 9) as u8, (x * y) as u8, 255 - x as u8]));
    let picture = DynamicImage::ImageRgba8(picture);
    let plain = DynamicImage::ImageRgb8(picture.to_rgb8());
    let formats =
        [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff];
    let others = formats.map(|format| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect(EXPECTED);
        bytes.into_inner()
    });
    let pixels = plain.as_bytes();
    let kinds = [
        (Subsamp::Sub2x2, false),
        (Subsamp::None, true),
        (Subsamp::Sub2x1, false),
        (Subsamp::None, false),
        (Subsamp::Gray, false),
    ];
    let jpegs = kinds.map(|(subsamp, progressive)| {
        let mut compressor = Compressor::new().expect(EXPECTED);
        compressor.set_subsamp(subsamp).expect(EXPECTED);
        compressor.set_progressive(progressive).expect(EXPECTED);
        let image = Image { pixels, width: 97, pitch: 97 * 3, height: 53, format: PixelFormat::RGB };
        compressor.compress_to_vec(image).expect(EXPECTED)
    });
    let ink = picture.as_bytes();
    let ink = Image { pixels: ink, width: 97, pitch: 97 * 4, height: 53, format: PixelFormat::CMYK };
    let ink = Compressor::new().and_then(|mut compressor| compressor.compress_to_vec(ink)).expect(EXPECTED);
    // The first two bytes are the target's: options and transform, and a part.
    let images = others.into_iter().chain(jpegs).chain([ink]);
    (0..).zip(images).map(|(choice, bytes)| [vec![choice, choice * 23], bytes].concat()).collect()
}

pub(crate) fn captions() -> Vec<Vec<u8>> {
    [
        "a photo of a cat",
        "It&rsquo;s &amp;amp; &#x1F600; &notit; <b>&EACUTE;</b>",
        "“ﬁne” Straße ΟΔΥΣΣΕΥΣ İ e\u{301} ＦＵＬＬ\u{3000}ﾊﾝ 👩‍👩‍👧 \u{1b}[31mred\u{1b}[0m \u{feff}\u{0}",
        "json:caption 写真の猫 schÃ¶n â€œ \u{85}\r\n<end_of_text>",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
