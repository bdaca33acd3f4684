use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use fastclip_schemas::SampleId;
use fastclip_schemas::zero_shot::CLASS_MEMBER;
use fastclip_shards::{Sample, SampleRun};

use crate::output::{Finisher, Output};
use crate::plan::{Draws, Purpose};
use crate::stats::Meters;
use crate::text::{CaptionFault, Captions};
use crate::transform::{Augmentation, ImageTransformer, Quality, Transform};
use crate::{BadReason, Content, LoadError, Members, Tokenizer};
use fastclip_images::{DecodeError, DecodeOptions, ImageDecoder};

const IMAGE_EXTENSIONS: [&str; 10] =
    ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif", "avif"];
/// Class of samples without one.
const NO_CLASS: i32 = -1;

/// What a batch keeps of a sample beside its pixels.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: SampleId,
    pub(crate) key: Box<str>,
    pub(crate) tokens: Vec<i32>,
    pub(crate) length: i32,
    pub(crate) class: i32,
    /// Only where they are what the batch shall hold.
    pub(crate) members: Option<Members>,
}

/// What is wrong with a sample.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) key: Option<String>,
    pub(crate) reason: BadReason,
    pub(crate) detail: String,
}

/// Turns samples into pixels and tokens. One for each thread; keeps decoder and scratch memory.
#[derive(Debug)]
pub(crate) struct SamplePreparer {
    decoder: ImageDecoder,
    transformer: ImageTransformer,
    finisher: Finisher,
    settings: SampleSettings,
    meters: Arc<Meters>,
}

/// What samples become.
#[derive(Debug, Clone)]
pub(crate) struct SampleSettings {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) captions: Captions,
    pub(crate) content: Content,
    pub(crate) transform: Transform,
    pub(crate) quality: Quality,
    pub(crate) decoding: DecodeOptions,
    pub(crate) output: Output,
    pub(crate) context_length: usize,
    pub(crate) seed: u64,
}

impl SampleSettings {
    /// Bytes of a sample in a batch.
    pub(crate) fn num_bytes(&self) -> usize {
        match &self.content {
            Content::Images => self.transform.image_bytes() * self.output.values.num_bytes(),
            Content::Decoded(decoder) => decoder.num_bytes(),
            Content::Members => 0,
        }
    }
}

impl SamplePreparer {
    pub(crate) fn new(settings: SampleSettings, meters: Arc<Meters>) -> Result<Self, LoadError> {
        Ok(Self {
            decoder: ImageDecoder::with_options(settings.decoding)?,
            transformer: ImageTransformer::new(),
            finisher: Finisher::new(settings.output),
            settings,
            meters,
        })
    }

    /// Writes a sample's pixels, and returns the rest of it.
    pub(crate) fn prepare(
        &mut self,
        run: &SampleRun,
        sample: u32,
        epoch: u64,
        pixels: &mut [u8],
    ) -> Result<Prepared, Fault> {
        let sample = run.sample(sample).map_err(|error| Fault {
            key: None,
            reason: BadReason::Archive,
            detail: with_causes(&error),
        })?;
        let fault = |(reason, detail)| Fault { key: Some(sample.key().to_owned()), reason, detail };
        // The cheap parts first: a sample without a caption need not be decoded.
        let settings = &self.settings;
        let class = class(&sample).map_err(fault)?;
        let augmentation = Augmentation { seed: settings.seed, epoch, sample: sample.id() };
        let caption = caption(&sample, settings, augmentation, class).map_err(fault)?;

        let mut tokens = vec![0; settings.context_length];
        let length = self.meters.tokenize.time(|| settings.tokenizer.encode_into(&caption, &mut tokens));
        let length = i32::try_from(length).expect("a context is far shorter");

        let members = self.fill(&sample, augmentation, pixels).map_err(fault)?;
        Ok(Prepared { id: sample.id(), key: sample.key().into(), tokens, length, class, members })
    }

    /// Makes of a sample what the batch shall hold.
    fn fill(
        &mut self,
        sample: &Sample<'_>,
        augmentation: Augmentation,
        out: &mut [u8],
    ) -> Finding<Option<Members>> {
        match &self.settings.content {
            Content::Images => {
                let image = image(sample)?;
                self.render(image, augmentation, out).map_err(|error| (reason(&error), error.to_string()))?;
                Ok(None)
            }
            Content::Decoded(decoder) => {
                let decode = || decoder.decode(sample, augmentation, out);
                self.meters
                    .decode
                    .time(decode)
                    .map_err(|error| (BadReason::Content, with_causes(&*error)))?;
                Ok(None)
            }
            Content::Members => Ok(Some(Members::of(sample))),
        }
    }

    /// Makes pixels of an image file.
    fn render(
        &mut self,
        image: &[u8],
        augmentation: Augmentation,
        pixels: &mut [u8],
    ) -> Result<(), DecodeError> {
        let Self { decoder, transformer, finisher, settings, meters } = self;
        let SampleSettings { transform, quality, .. } = settings;
        let start = Instant::now();
        let opened = decoder.open(image)?;
        // What is shown is decided before the image is decoded: most of the rest need not be.
        let plan = transformer.plan(opened.size(), transform, augmentation, *quality, opened.is_scalable());
        let window = opened.decode(&plan.part)?;
        let decoded = Instant::now();
        finisher.finish(pixels, |planes| transformer.render(plan, window, transform, planes));
        meters.decode.add(decoded - start);
        meters.transform.add(decoded.elapsed());
        Ok(())
    }
}

type Finding<T> = Result<T, (BadReason, String)>;

fn image<'a>(sample: &Sample<'a>) -> Finding<&'a [u8]> {
    sample
        .members()
        .find_map(|(extension, bytes)| IMAGE_EXTENSIONS.contains(&extension).then_some(bytes))
        .ok_or_else(|| (BadReason::MissingImage, format!("its members are {}", extensions(sample))))
}

/// The caption, which samples of a classification set may lack, and those that are no images.
fn caption<'a>(
    sample: &Sample<'a>,
    settings: &SampleSettings,
    Augmentation { seed, epoch, sample: id }: Augmentation,
    class: i32,
) -> Finding<Cow<'a, str>> {
    let draws = || Draws::new(Purpose::Caption, seed, epoch, id.0);
    match settings.captions.choose(sample, draws) {
        Ok(Some(caption)) => Ok(caption),
        Ok(None) if class != NO_CLASS || !matches!(settings.content, Content::Images) => {
            Ok(Cow::Borrowed(""))
        }
        Ok(None) => Err((BadReason::MissingCaption, format!("its members are {}", extensions(sample)))),
        Err(CaptionFault::NotUtf8(detail)) => Err((BadReason::CaptionNotUtf8, detail)),
        Err(CaptionFault::Malformed(detail)) => Err((BadReason::MalformedCaption, detail)),
    }
}

fn class(sample: &Sample<'_>) -> Finding<i32> {
    let Some(bytes) = sample.member(CLASS_MEMBER) else { return Ok(NO_CLASS) };
    let text = String::from_utf8_lossy(bytes);
    match text.trim().parse() {
        Ok(class @ 0..) => Ok(class),
        _ => Err((BadReason::Class, format!("`{}` is not a class number", text.trim().escape_debug()))),
    }
}

fn extensions(sample: &Sample<'_>) -> String {
    let names: Vec<&str> = sample.members().map(|(extension, _)| extension).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn reason(error: &DecodeError) -> BadReason {
    match error {
        DecodeError::Truncated { .. } => BadReason::TruncatedImage,
        DecodeError::Oversized { .. } | DecodeError::TooLong { .. } | DecodeError::TooManyBytes { .. } => {
            BadReason::OversizedImage
        }
        _ => BadReason::UndecodableImage,
    }
}

/// The message of an error with those of its causes.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
