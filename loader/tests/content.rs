//! Samples that are no images.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::error::Error;
use std::sync::Arc;

use common::{Members, Toy, at, count};
use fastclip_loader::{
    Augmentation, BadReason, Content, Layout, Normalisation, Output, SampleDecoder, Tail, Values,
};
use fastclip_shards::Sample;

const NUM_VALUES: usize = 7;

/// Sound as numbers of 16 bits, of which each sample has its own many.
fn sound(number: u32) -> Members {
    let values =
        (0..number % 11).flat_map(|value| (value as u16 * 3 + number as u16).to_le_bytes()).collect();
    vec![("pcm", values), ("cls", (number % 3).to_string().into_bytes())]
}

/// Cuts sound to a length, or fills it up with silence; none at all is refused.
#[derive(Debug)]
struct Cut;

impl SampleDecoder for Cut {
    fn num_bytes(&self) -> usize {
        2 * NUM_VALUES
    }

    fn decode(
        &self,
        sample: &Sample<'_>,
        _: Augmentation,
        out: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let bytes = sample.member("pcm").filter(|bytes| !bytes.is_empty()).ok_or("there is no sound")?;
        out.fill(0);
        out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

#[test]
fn images_come_in_the_order_and_as_the_numbers_that_were_asked_for() {
    let toy = Toy::new(24, 8);
    let images = |output: Output| {
        let loader = toy.loader(8).output(output).build().unwrap();
        let batches = loader.stream(at(0, 0), at(1, 0)).unwrap().map(Result::unwrap);
        batches.flat_map(|batch| batch.images().to_vec()).collect::<Vec<u8>>()
    };
    let planes = images(Output::default());
    let pixels = images(Output { layout: Layout::Nhwc, values: Values::U8 });
    let normalisation = Normalisation { mean: [0.0; 3], deviation: [1.0 / 255.0; 3] };
    let bf16 = images(Output { layout: Layout::Nhwc, values: Values::Bf16(normalisation) });
    let f32 = images(Output { layout: Layout::Nchw, values: Values::F32(normalisation) });
    assert_eq!((pixels.len(), bf16.len(), f32.len()), (planes.len(), 2 * planes.len(), 4 * planes.len()));
    let num_pixels = 16 * 16;
    for (at, &value) in planes.iter().enumerate() {
        let (image, channel, pixel) = (at / (3 * num_pixels), at / num_pixels % 3, at % num_pixels);
        let of_pixels = (image * num_pixels + pixel) * 3 + channel;
        assert_eq!(pixels[of_pixels], value, "{at}");
        let number = f32::from_ne_bytes(*f32[4 * at..].first_chunk().unwrap());
        assert!((number - f32::from(value)).abs() < 1e-3, "{number} for {value}");
        let bits = u16::from_ne_bytes(*bf16[2 * of_pixels..].first_chunk().unwrap());
        let number = f32::from_bits(u32::from(bits) << 16);
        assert!((number - f32::from(value)).abs() <= 0.5, "{number} for {value}");
    }
}

#[test]
fn what_a_decoder_of_the_callers_makes_of_members_stands_in_the_batch() {
    let toy = Toy::with(40, 16, sound);
    let loader = toy.loader(8).content(Content::Decoded(Arc::new(Cut))).tail(Tail::Keep).build().unwrap();
    let mut ids = Vec::new();
    for batch in loader.stream(at(0, 0), at(1, 0)).unwrap() {
        let batch = batch.unwrap();
        assert_eq!(batch.images().len(), batch.len() * 2 * NUM_VALUES);
        for (id, bytes) in batch.sample_ids().iter().zip(batch.images().chunks_exact(2 * NUM_VALUES)) {
            let mut expected = sound(id.0 as u32).remove(0).1;
            expected.resize(2 * NUM_VALUES, 0);
            assert_eq!(bytes, expected, "{id}");
            ids.push(id.0);
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..40).filter(|id| id % 11 != 0).collect::<Vec<_>>());
    assert_eq!(loader.stats().bad_samples.into_iter().collect::<Vec<_>>(), [(BadReason::Content, 4)]);
}

#[test]
fn members_come_as_they_are_stored_and_in_the_order_of_the_plan() {
    let toy = Toy::with(40, 16, sound);
    let loader = toy.loader(8).content(Content::Members).threads(count(3)).build().unwrap();
    for batch in loader.stream(at(0, 0), at(1, 0)).unwrap() {
        let batch = batch.unwrap();
        assert_eq!((batch.members().len(), batch.images().len()), (8, 0));
        for ((id, members), class) in batch.sample_ids().iter().zip(batch.members()).zip(batch.classes()) {
            let expected = sound(id.0 as u32);
            let expected: Vec<(&str, &[u8])> =
                expected.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
            assert_eq!(members.iter().collect::<Vec<_>>(), expected, "{id}");
            assert_eq!(members.get("pcm"), Some(expected[0].1));
            assert_eq!(*class, (id.0 % 3) as i32);
        }
    }
}
