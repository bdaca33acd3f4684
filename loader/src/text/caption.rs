use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use fastclip_schemas::{SampleId, foreign_json};
use fastclip_shards::Sample;
use serde_json::Value;

use crate::Order;
use crate::plan::{Draws, Purpose};

/// Where captions of a sample are found.
///
/// As text, the extension of a member, such as `txt`, or that of a JSON member with the name of a field: `json:caption`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CaptionSource {
    /// A member that is a caption.
    Member(String),
    /// A field of a JSON member: a caption, or a list of them.
    Field {
        /// Extension of the member.
        member: String,
        /// Name of the field.
        field: String,
    },
}

impl CaptionSource {
    /// A member that is a caption.
    pub fn member(extension: impl Into<String>) -> Self {
        Self::Member(extension.into())
    }

    /// A field of the member `json`.
    pub fn json(field: impl Into<String>) -> Self {
        Self::Field { member: "json".to_owned(), field: field.into() }
    }
}

impl FromStr for CaptionSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(':') {
            Some((member, field)) => Self::Field { member: member.to_owned(), field: field.to_owned() },
            None => Self::member(text),
        })
    }
}

impl fmt::Display for CaptionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => f.write_str(member),
            Self::Field { member, field } => write!(f, "{member}:{field}"),
        }
    }
}

/// Which caption of a sample is used, where it may have several.
///
/// What is drawn depends on seed, epoch and sample, so a sample may show another caption in each epoch, and the same one
/// however many threads or ranks there are.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Captions {
    /// The first caption of the first source that has one.
    First(Vec<CaptionSource>),
    /// Any caption of all sources, all equally likely.
    Random(Vec<CaptionSource>),
    /// A source by its weight among those that have a caption, and any of its captions.
    Weighted(Vec<(CaptionSource, f64)>),
}

impl Default for Captions {
    fn default() -> Self {
        Self::First(vec![CaptionSource::member("txt")])
    }
}

/// Why a sample's captions cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaptionFault {
    NotUtf8(String),
    Malformed(String),
}

impl Captions {
    /// The sources, in order.
    pub fn sources(&self) -> impl Iterator<Item = &CaptionSource> {
        let (plain, weighted) = match self {
            Self::First(sources) | Self::Random(sources) => (&sources[..], &[][..]),
            Self::Weighted(sources) => (&[][..], &sources[..]),
        };
        plain.iter().chain(weighted.iter().map(|(source, _)| source))
    }

    /// What is wrong with the settings, if anything.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        if self.sources().next().is_none() {
            return Some("it must name at least one source");
        }
        match self {
            Self::Weighted(sources)
                if !sources.iter().all(|(_, weight)| weight.is_finite() && *weight > 0.0) =>
            {
                Some("weights must be above 0")
            }
            _ => None,
        }
    }

    /// The caption of a sample that a loader of this order uses in an epoch, for whoever shows it; in a mixture, in a pass over
    /// the dataset of the sample. Nothing where there is none, or none that can be read.
    pub fn of_sample<'a>(
        &self,
        sample: &Sample<'a>,
        id: SampleId,
        order: Order,
        epoch: u64,
    ) -> Option<Cow<'a, str>> {
        self.choose(sample, || Draws::new(Purpose::Caption, order.seed(), epoch, id.0)).ok().flatten()
    }

    /// The caption of a sample; nothing where it has none.
    pub(crate) fn choose<'a>(
        &self,
        sample: &Sample<'a>,
        draws: impl FnOnce() -> Draws,
    ) -> Result<Option<Cow<'a, str>>, CaptionFault> {
        match self {
            Self::First(sources) => {
                for source in sources {
                    if let Some(caption) = source.read(sample)?.into_iter().next() {
                        return Ok(Some(caption));
                    }
                }
                Ok(None)
            }
            Self::Random(sources) => {
                let mut captions = Vec::new();
                for source in sources {
                    captions.append(&mut source.read(sample)?);
                }
                Ok(any(captions, &mut draws()))
            }
            Self::Weighted(sources) => {
                let mut found = Vec::with_capacity(sources.len());
                for (source, weight) in sources {
                    let captions = source.read(sample)?;
                    if !captions.is_empty() {
                        found.push((captions, *weight));
                    }
                }
                let mut draws = draws();
                let mut rest = draws.unit() * found.iter().map(|(_, weight)| weight).sum::<f64>();
                // The last one where rounding leaves something over.
                let last = found.len().saturating_sub(1);
                let chosen = found.into_iter().enumerate().find_map(|(number, (captions, weight))| {
                    rest -= weight;
                    (rest < 0.0 || number == last).then_some(captions)
                });
                Ok(any(chosen.unwrap_or_default(), &mut draws))
            }
        }
    }
}

/// One of several captions, all equally likely.
fn any<'a>(mut captions: Vec<Cow<'a, str>>, draws: &mut Draws) -> Option<Cow<'a, str>> {
    let chosen = match u32::try_from(captions.len()).expect("a member has less than four billion captions") {
        0 => return None,
        1 => 0,
        num_captions => draws.below(num_captions) as usize,
    };
    Some(captions.swap_remove(chosen))
}

impl CaptionSource {
    /// All captions here, in order. A field that is not there, or null, has none.
    fn read<'a>(&self, sample: &Sample<'a>) -> Result<Vec<Cow<'a, str>>, CaptionFault> {
        let (Self::Member(member) | Self::Field { member, .. }) = self;
        let Some(bytes) = sample.member(member) else { return Ok(Vec::new()) };
        let field = match self {
            Self::Member(_) => {
                let text =
                    std::str::from_utf8(bytes).map_err(|error| CaptionFault::NotUtf8(error.to_string()))?;
                return Ok(vec![Cow::Borrowed(text)]);
            }
            Self::Field { field, .. } => field,
        };
        let malformed = |why: String| CaptionFault::Malformed(format!("`{self}`: {why}"));
        let mut json: Value = foreign_json(bytes).map_err(|error| malformed(error.to_string()))?;
        match json.get_mut(field).map_or(Value::Null, Value::take) {
            Value::Null => Ok(Vec::new()),
            Value::String(caption) => Ok(vec![caption.into()]),
            Value::Array(items) => items
                .into_iter()
                .filter(|item| !item.is_null())
                .map(|item| match item {
                    Value::String(caption) => Ok(caption.into()),
                    other => Err(malformed(format!("{other} is not text"))),
                })
                .collect(),
            other => Err(malformed(format!("{other} is not text"))),
        }
    }
}
