use turbojpeg::{Image, PixelFormat, Subsamp};

/// A real image with its caption and class, a pure function of its number.
///
/// No two of the first thousand look alike, and every caption is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// A decodable JPEG.
    pub jpeg: Vec<u8>,
    /// What the image shows.
    pub caption: String,
    /// Number of its class, below [`Pair::CLASSES`].
    pub class: u32,
}

impl Pair {
    /// Names of the classes, by number.
    pub const CLASSES: [&str; 4] = ["red slope", "green slope", "blue slope", "grey slope"];

    /// The pair with this number, its image `size` pixels wide and high.
    pub fn new(number: u32, size: usize) -> Self {
        let class = number % Self::CLASSES.len() as u32;
        let caption = format!("picture number {number}: a {}", Self::CLASSES[class as usize]);
        Self { jpeg: jpeg(number, class, size), caption, class }
    }

    /// The text of its `cls` member.
    pub fn class_text(&self) -> String {
        self.class.to_string()
    }

    /// The text of its `json` member.
    pub fn json(&self) -> String {
        format!("{{\"caption\":\"{}\"}}", self.caption)
    }
}

/// A slope of brightness in the colour of the class, with a bar code of the number along the top.
fn jpeg(number: u32, class: u32, size: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(3 * size * size);
    for y in 0..size {
        for x in 0..size {
            let slope = (160 * (x + y) / (2 * size)) as u8 + 60;
            let bit = number >> (x * 10 / size) & 1;
            let level = if y * 4 < size { 255 * bit as u8 } else { slope };
            pixels
                .extend((0..3).map(|channel| if class == 3 || channel == class { level } else { level / 4 }));
        }
    }
    let image =
        Image { pixels: &pixels[..], width: size, pitch: 3 * size, height: size, format: PixelFormat::RGB };
    turbojpeg::compress(image, 90, Subsamp::Sub2x2).expect("a small RGB image can be compressed").to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_real_and_differ() {
        let pairs: Vec<Pair> = (0..40).map(|number| Pair::new(number, 32)).collect();
        for (number, pair) in pairs.iter().enumerate() {
            let header = turbojpeg::read_header(&pair.jpeg).unwrap();
            assert_eq!((header.width, header.height), (32, 32));
            assert_eq!(*pair, Pair::new(number as u32, 32));
            assert!(pairs[..number].iter().all(|other| other.jpeg != pair.jpeg), "{number}");
        }
    }
}
