use super::NotOurs;
use super::codes::CodeLengths;

/// Coefficients of a block.
pub(super) const BLOCK: usize = 64;

/// What the markers of a JPEG say that is decoded here, with the bytes that said it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(super) sampling: Sampling,
    /// One for grey, which stands three times here, and three for colours.
    pub(super) components: [Component<'a>; 3],
    /// Units between two restart markers; 0 where there are none.
    pub(super) restart_interval: u32,
    /// The file from the first byte of its scan on.
    pub(super) scan: &'a [u8],
}

/// How many samples of a colour there are for those of the brightness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    /// Brightness alone.
    Grey,
    /// 4:4:4, as many.
    Full,
    /// 4:2:2, one for two in a row.
    HalfWidth,
    /// 4:2:0, one for four.
    Half,
}

impl Sampling {
    /// Blocks of the brightness in a unit: columns and rows.
    pub(super) fn factors(self) -> (usize, usize) {
        match self {
            Self::Grey | Self::Full => (1, 1),
            Self::HalfWidth => (2, 1),
            Self::Half => (2, 2),
        }
    }

    pub(super) fn num_components(self) -> usize {
        if self == Self::Grey { 1 } else { 3 }
    }
}

/// What the coefficients of a component are decoded with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Component<'a> {
    /// Steps of the coefficients, in zigzag order.
    pub(super) steps: &'a [u8; BLOCK],
    pub(super) dc: CodeLengths<'a>,
    pub(super) ac: CodeLengths<'a>,
}

const START_OF_SCAN: u8 = 0xda;
/// Tables that a kind may have.
const MAX_TABLES: usize = 4;
/// libjpeg's limit for either side.
const MAX_SIDE: u16 = 65_500;

/// Tables as they stand when the scan begins.
#[derive(Default)]
struct Tables<'a> {
    steps: [Option<&'a [u8; BLOCK]>; MAX_TABLES],
    dc: [Option<CodeLengths<'a>>; MAX_TABLES],
    ac: [Option<CodeLengths<'a>>; MAX_TABLES],
}

/// What the header of the frame says.
struct Frame {
    width: u32,
    height: u32,
    sampling: Sampling,
    /// Name and number of steps of each component.
    components: [(u8, u8); 3],
}

/// What applications wrote about colours.
#[derive(Default)]
struct Colours {
    has_jfif: bool,
    adobe_transform: Option<u8>,
}

impl<'a> Header<'a> {
    /// Reads a header, if it is one of the kind that is decoded here, without any oddity.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        Self::read_markers(bytes).ok()
    }

    fn read_markers(bytes: &'a [u8]) -> Result<Self, NotOurs> {
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8]).ok_or(NotOurs)?;
        let mut tables = Tables::default();
        let (mut frame, mut restart_interval, mut colours) = (None, 0, Colours::default());
        loop {
            let (marker, segment) = next_segment(&mut rest)?;
            match marker {
                0xc0 | 0xc1 if frame.is_none() => frame = Some(Frame::read(segment)?),
                0xc4 => tables.read_codes(segment)?,
                0xdb => tables.read_steps(segment)?,
                0xdd => {
                    let &[high, low] = segment else { return Err(NotOurs) };
                    restart_interval = u32::from(u16::from_be_bytes([high, low]));
                }
                0xe0 if segment.len() >= 14 && segment.starts_with(b"JFIF\0") => {
                    // libjpeg warns of any other version.
                    if segment[5] != 1 {
                        return Err(NotOurs);
                    }
                    colours.has_jfif = true;
                }
                0xee => {
                    if let [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, transform, ..] = *segment {
                        colours.adobe_transform = Some(transform);
                    }
                }
                0xe0..=0xef | 0xfe => {}
                START_OF_SCAN => {
                    let frame: Frame = frame.ok_or(NotOurs)?;
                    // libjpeg interpolates only where a row has more than two samples.
                    if frame.sampling.factors().0 == 2 && frame.width <= 4 {
                        return Err(NotOurs);
                    }
                    colours.check(&frame)?;
                    return Ok(Self {
                        width: frame.width,
                        height: frame.height,
                        sampling: frame.sampling,
                        components: tables.of_scan(&frame, segment)?,
                        restart_interval,
                        scan: rest,
                    });
                }
                _ => return Err(NotOurs),
            }
        }
    }
}

/// Takes the next marker and what belongs to it.
fn next_segment<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), NotOurs> {
    let [0xff, after @ ..] = *rest else { return Err(NotOurs) };
    // Any number of these may come before a marker.
    let fill = after.iter().take_while(|&&byte| byte == 0xff).count();
    let [marker, high, low, ..] = after[fill..] else { return Err(NotOurs) };
    // Counts itself, too.
    let length = usize::from(u16::from_be_bytes([high, low]));
    let segment = after[fill + 1..].get(2..length).ok_or(NotOurs)?;
    *rest = &after[fill + 1 + length..];
    Ok((marker, segment))
}

impl Frame {
    fn read(segment: &[u8]) -> Result<Self, NotOurs> {
        let [8, height_high, height_low, width_high, width_low, num_components, components @ ..] = segment
        else {
            return Err(NotOurs);
        };
        let [width, height] =
            [[*width_high, *width_low], [*height_high, *height_low]].map(u16::from_be_bytes);
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(NotOurs);
        }
        let (sampling, components) = match (num_components, components) {
            // A lone component is not interleaved, so its factors say nothing.
            (1, &[name, factors, steps]) if is_factor(factors >> 4) && is_factor(factors & 15) => {
                (Sampling::Grey, [(name, steps); 3])
            }
            (3, &[first, factors, steps, second, 0x11, second_steps, third, 0x11, third_steps]) => {
                let sampling = match factors {
                    0x11 => Sampling::Full,
                    0x21 => Sampling::HalfWidth,
                    0x22 => Sampling::Half,
                    _ => return Err(NotOurs),
                };
                (sampling, [(first, steps), (second, second_steps), (third, third_steps)])
            }
            _ => return Err(NotOurs),
        };
        Ok(Self { width: u32::from(width), height: u32::from(height), sampling, components })
    }
}

fn is_factor(factor: u8) -> bool {
    (1..=4).contains(&factor)
}

impl Colours {
    /// Accepts what libjpeg takes for brightness and two differences of colour.
    fn check(&self, frame: &Frame) -> Result<(), NotOurs> {
        let is_usual = match (self.has_jfif, self.adobe_transform) {
            (true, _) | (false, Some(1)) => true,
            (false, Some(_)) => false,
            (false, None) => frame.components.map(|(name, _)| name) == [1, 2, 3],
        };
        if is_usual || frame.sampling == Sampling::Grey { Ok(()) } else { Err(NotOurs) }
    }
}

impl<'a> Tables<'a> {
    fn read_steps(&mut self, mut segment: &'a [u8]) -> Result<(), NotOurs> {
        while let Some((&number, rest)) = segment.split_first() {
            // A number above 3 would say 16 bits, or nothing.
            let place = self.steps.get_mut(usize::from(number)).ok_or(NotOurs)?;
            let (steps, rest) = rest.split_first_chunk().ok_or(NotOurs)?;
            *place = Some(steps);
            segment = rest;
        }
        Ok(())
    }

    fn read_codes(&mut self, mut segment: &'a [u8]) -> Result<(), NotOurs> {
        while let Some((&kind, rest)) = segment.split_first() {
            let kinds = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(NotOurs),
            };
            let place = kinds.get_mut(usize::from(kind & 15)).ok_or(NotOurs)?;
            let (codes, rest) = CodeLengths::split_from(rest).ok_or(NotOurs)?;
            *place = Some(codes);
            segment = rest;
        }
        Ok(())
    }

    /// What the components of the only scan use.
    fn of_scan(&self, frame: &Frame, segment: &[u8]) -> Result<[Component<'a>; 3], NotOurs> {
        let num_components = frame.sampling.num_components();
        // All coefficients with all their bits, as it must be without progression.
        let [number, chosen @ .., 0, 63, 0] = segment else { return Err(NotOurs) };
        let (chosen, []) = chosen.as_chunks() else { return Err(NotOurs) };
        if usize::from(*number) != num_components || chosen.len() != num_components {
            return Err(NotOurs);
        }
        let component = |at: usize| {
            let (name, steps) = frame.components[at];
            let [chosen, codes] = chosen[at.min(num_components - 1)];
            let is_repeated =
                frame.components[..at.min(num_components - 1)].iter().any(|other| other.0 == name);
            let component = Component {
                steps: self.steps.get(usize::from(steps)).copied().flatten().ok_or(NotOurs)?,
                dc: self.dc.get(usize::from(codes >> 4)).copied().flatten().ok_or(NotOurs)?,
                ac: self.ac.get(usize::from(codes & 15)).copied().flatten().ok_or(NotOurs)?,
            };
            if chosen == name && !is_repeated { Ok(component) } else { Err(NotOurs) }
        };
        Ok([component(0)?, component(1)?, component(2)?])
    }
}
