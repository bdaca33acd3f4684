//! Changes of colour, with Pillow's arithmetic.

/// Red, green and blue of an image, each a plane.
#[derive(Debug)]
pub(super) struct Planes<'a>([&'a mut [u8]; 3]);

impl<'a> Planes<'a> {
    /// Splits three planes of one size.
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        let plane = bytes.len() / 3;
        let (red, rest) = bytes.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        Self([red, green, blue])
    }

    fn len(&self) -> usize {
        self.0[0].len()
    }

    fn pixel(&self, at: usize) -> [u8; 3] {
        [self.0[0][at], self.0[1][at], self.0[2][at]]
    }

    fn set(&mut self, at: usize, pixel: [u8; 3]) {
        for (plane, value) in self.0.iter_mut().zip(pixel) {
            plane[at] = value;
        }
    }

    fn change(&mut self, change: impl Fn([u8; 3]) -> [u8; 3]) {
        for at in 0..self.len() {
            self.set(at, change(self.pixel(at)));
        }
    }
}

/// Brightness as seen, by ITU-R 601.
fn grey([red, green, blue]: [u8; 3]) -> u8 {
    let sum = u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471;
    ((sum + (1 << 15)) >> 16) as u8
}

/// `factor` of the way from one value to another, and beyond.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let value = f32::from(from) + factor * (f32::from(to) - f32::from(from));
    // Saturates, and cuts the fraction off.
    value as u8
}

pub(super) fn remove(planes: &mut Planes<'_>) {
    planes.change(|pixel| [grey(pixel); 3]);
}

pub(super) fn change_brightness(planes: &mut Planes<'_>, factor: f32) {
    planes.change(|pixel| pixel.map(|value| blend(0, value, factor)));
}

pub(super) fn change_contrast(planes: &mut Planes<'_>, factor: f32) {
    let sum: u64 = (0..planes.len()).map(|at| u64::from(grey(planes.pixel(at)))).sum();
    let mean = (sum as f64 / planes.len() as f64 + 0.5) as u8;
    planes.change(|pixel| pixel.map(|value| blend(mean, value, factor)));
}

pub(super) fn change_saturation(planes: &mut Planes<'_>, factor: f32) {
    planes.change(|pixel| {
        let grey = grey(pixel);
        pixel.map(|value| blend(grey, value, factor))
    });
}

/// Turns the hue by a fraction of a circle, in Pillow's steps of 1/255.
pub(super) fn turn_hue(planes: &mut Planes<'_>, turn: f64) {
    let steps = (turn * 255.0) as i32 as u8;
    planes.change(|pixel| {
        let [hue, saturation, value] = hsv_of_rgb(pixel);
        rgb_of_hsv([hue.wrapping_add(steps), saturation, value])
    });
}

fn hsv_of_rgb([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let most = red.max(green).max(blue);
    let range = most - red.min(green).min(blue);
    if range == 0 {
        return [0, 0, most];
    }
    let away = |value: u8| f32::from(most - value) / f32::from(range);
    let (red_away, green_away, blue_away) = (away(red), away(green), away(blue));
    let sixths = if red == most {
        f64::from(blue_away - green_away)
    } else if green == most {
        2.0 + f64::from(red_away) - f64::from(blue_away)
    } else {
        4.0 + f64::from(green_away) - f64::from(red_away)
    };
    let hue = ((sixths as f32) as f64 / 6.0 + 1.0) % 1.0;
    let saturation = f32::from(range) / f32::from(most);
    [((hue as f32) as f64 * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most]
}

fn rgb_of_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let sixths = f64::from(hue) * 6.0 / 255.0;
    let sector = sixths.floor();
    let along = f64::from((sixths - sector) as f32);
    let strength = f64::from((f64::from(saturation) / 255.0) as f32);
    let at = |fraction: f64| (f64::from(value) * (1.0 - fraction)).round() as u8;
    let (low, falling, rising) = (at(strength), at(strength * along), at(strength * (1.0 - along)));
    match sector as u8 % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}
