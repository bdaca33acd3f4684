use crate::Normalisation;
use crate::normalise::Table;

/// What the images of a batch are made of.
///
/// The default, bytes in planes, is the least work for the loader and the fewest bytes to move. Where a device is to
/// normalise them, or a model reads channels last, nothing else is needed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Output {
    /// In what order the values come.
    pub layout: Layout,
    /// What a value is.
    pub values: Values,
}

/// In what order the values of an image come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Layout {
    /// Planes: all of red, of green, of blue. Shape (3, size, size).
    #[default]
    Nchw,
    /// Pixels: red, green and blue of each. Shape (size, size, 3).
    Nhwc,
}

/// What a value of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Values {
    /// A byte, 0 to 255.
    #[default]
    U8,
    /// A normalised number of 32 bits, as torchvision's `ToTensor` and `Normalize` make it.
    F32(Normalisation),
    /// The same, rounded to the nearest number of 16 bits with the exponent of an `f32`.
    Bf16(Normalisation),
}

impl Values {
    /// Bytes of a value.
    pub const fn num_bytes(&self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32(_) => 4,
            Self::Bf16(_) => 2,
        }
    }
}

/// Turns images of bytes in planes into what is asked for. One for each thread.
#[derive(Debug)]
pub(crate) struct Finisher {
    output: Output,
    /// Nothing for bytes.
    table: Option<Table>,
    planes: Vec<u8>,
}

impl Finisher {
    pub(crate) fn new(output: Output) -> Self {
        let table = match output.values {
            Values::U8 => None,
            Values::F32(normalisation) | Values::Bf16(normalisation) => Some(Table::new(normalisation)),
        };
        Self { output, table, planes: Vec::new() }
    }

    /// Has `render` write planes of bytes, and `image` filled with what they become.
    pub(crate) fn finish(&mut self, image: &mut [u8], render: impl FnOnce(&mut [u8])) {
        let Output { layout, values } = self.output;
        if (layout, values) == (Layout::Nchw, Values::U8) {
            return render(image);
        }
        self.planes.resize(image.len() / values.num_bytes(), 0);
        render(&mut self.planes);
        let (planes, table) = (&self.planes, &self.table);
        let normalised = |channel: usize, byte: u8| {
            table.as_ref().expect("made for all values but bytes").value(channel, byte)
        };
        match values {
            Values::U8 => write(planes, layout, image, |_, byte| [byte]),
            Values::F32(_) => {
                write(planes, layout, image, |channel, byte| normalised(channel, byte).to_ne_bytes());
            }
            Values::Bf16(_) => {
                write(planes, layout, image, |channel, byte| bf16(normalised(channel, byte)).to_ne_bytes());
            }
        }
    }
}

fn write<const N: usize>(
    planes: &[u8],
    layout: Layout,
    image: &mut [u8],
    value: impl Fn(usize, u8) -> [u8; N],
) {
    let (values, _) = image.as_chunks_mut::<N>();
    let plane = planes.len() / 3;
    for (channel, plane) in planes.chunks_exact(plane).enumerate() {
        let write = |(to, &byte): (&mut [u8; N], &u8)| *to = value(channel, byte);
        match layout {
            Layout::Nchw => values[channel * plane.len()..].iter_mut().zip(plane).for_each(write),
            Layout::Nhwc => values.iter_mut().skip(channel).step_by(3).zip(plane).for_each(write),
        }
    }
}

/// Rounds to the nearest, ties to even. Normalised values are neither infinite nor NaN.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANES: [u8; 6] = [10, 20, 30, 40, 50, 255];

    fn finish(layout: Layout, values: Values) -> Vec<u8> {
        let mut image = vec![0; PLANES.len() * values.num_bytes()];
        Finisher::new(Output { layout, values }).finish(&mut image, |planes| planes.copy_from_slice(&PLANES));
        image
    }

    #[test]
    fn bytes_come_in_planes_or_pixels() {
        assert_eq!(finish(Layout::Nchw, Values::U8), PLANES);
        assert_eq!(finish(Layout::Nhwc, Values::U8), [10, 30, 50, 20, 40, 255]);
    }

    #[test]
    fn numbers_are_those_of_torchvision() {
        let bytes = finish(Layout::Nchw, Values::F32(Normalisation::OPENAI));
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes)).collect();
        // torchvision.transforms.Normalize on ToTensor's result.
        assert_eq!(values[0], (10.0_f32 / 255.0 - 0.481_454_66) / 0.268_629_54);
        assert_eq!(values[5], (1.0_f32 - 0.408_210_73) / 0.275_777_1);
        let bytes = finish(Layout::Nhwc, Values::Bf16(Normalisation::OPENAI));
        let shorter: Vec<f32> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_bits(u32::from(u16::from_ne_bytes(bytes)) << 16))
            .collect();
        for (at, &shorter) in [0, 2, 4, 1, 3, 5].into_iter().zip(&shorter) {
            assert!((shorter - values[at]).abs() <= values[at].abs() / 256.0, "{shorter} for {}", values[at]);
        }
    }

    #[test]
    fn halves_are_rounded_to_even() {
        for (value, expected) in [(1.0, 0x3f80), (1.003_906_3, 0x3f80), (1.011_718_8, 0x3f82), (-1.0, 0xbf80)]
        {
            assert_eq!(bf16(value), expected, "{value}");
        }
    }
}
