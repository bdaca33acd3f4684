use super::colour::{Rgb, mix, scale};
use super::draw::Draw;
use super::noise::{Noise, direction};
use super::painter;
use super::scene::{Object, Scene};

/// Width of the rounded edge of an object, in radii.
const BEVEL: f32 = 0.34;
/// Light that reaches a surface turned away from the lamp.
const AMBIENT: f32 = 0.42;

/// Draws a scene as a square of `size`² pixels, three bytes each.
///
/// Light is added and blended as intensities; only the last step, the camera, turns it into what a screen
/// expects.
pub(super) fn render(scene: &Scene, size: usize, draw: &mut Draw) -> Vec<u8> {
    let mut light = painter::paint(scene.background, size, draw);
    let swirl = Noise::flat(6.0, 6.0, 3).plane(size, draw);
    // From the back to the front: what was added last is smallest and lies on top.
    for object in &scene.objects {
        let patch = Patch::new(object, size);
        patch.darken_ground(scene, &mut light, size);
        patch.lay_down(scene, object, &swirl, &mut light, size);
    }
    photograph(scene, &light, size, draw)
}

/// The part of a picture around an object, with each pixel's distance from the object's border, in pixels.
struct Patch {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    distances: Vec<f32>,
    radius: f32,
    centre: (f32, f32),
    turned: (f32, f32),
    stretch: f32,
}

impl Patch {
    fn new(object: &Object, size: usize) -> Self {
        let scale = size as f32;
        let (radius, centre) = (object.radius * scale, (object.centre.0 * scale, object.centre.1 * scale));
        // Wide enough for the shadow: see `darken_ground`.
        let reach = 1.75 * radius + 2.0;
        let span = |middle: f32| {
            let start = (middle - reach).max(0.0) as usize;
            (start, (((middle + reach) as usize) + 1).min(size) - start)
        };
        let ((left, width), (top, height)) = (span(centre.0), span(centre.1));
        let mut patch = Self {
            left,
            top,
            width,
            height,
            distances: Vec::new(),
            radius,
            centre,
            turned: direction(object.angle),
            stretch: object.stretch,
        };
        let outline = object.shape.outline();
        patch.distances = (0..width * height)
            .map(|i| {
                let (x, y) = patch.local(left + i % width, top + i / width);
                outline.distance(x, y) * radius
            })
            .collect();
        patch
    }

    /// Place of a pixel's centre on the object: in radii, with `y` upwards, turned with the object.
    fn local(&self, column: usize, row: usize) -> (f32, f32) {
        let x = (column as f32 + 0.5 - self.centre.0) / (self.radius * self.stretch);
        let y = (self.centre.1 - row as f32 - 0.5) * self.stretch / self.radius;
        let (cos, sin) = self.turned;
        (cos * x + sin * y, cos * y - sin * x)
    }

    /// Distance at a place in the patch; outside of it, that of the nearest pixel.
    fn distance(&self, column: isize, row: isize) -> f32 {
        let column = column.clamp(0, self.width as isize - 1) as usize;
        let row = row.clamp(0, self.height as isize - 1) as usize;
        self.distances[row * self.width + column]
    }

    /// Throws the object's soft shadow onto what is there already.
    fn darken_ground(&self, scene: &Scene, light: &mut [Rgb], size: usize) {
        let depth = if scene.background.takes_shadow() { 0.62 } else { 0.22 };
        let offset = 0.22 * self.radius;
        let shift_x = (scene.light[0] * offset / scene.light[2]).round() as isize;
        let shift_y = (scene.light[1] * offset / scene.light[2]).round() as isize;
        let softness = 0.30 * self.radius;
        for row in 0..self.height {
            for column in 0..self.width {
                // The shadow falls away from the light; `y` of the light is upwards, of rows downwards.
                let distance = self.distance(column as isize + shift_x, row as isize - shift_y);
                let cover = (0.5 - distance / softness).clamp(0.0, 1.0);
                let pixel = &mut light[(self.top + row) * size + self.left + column];
                *pixel = scale(*pixel, 1.0 - depth * cover * cover * (3.0 - 2.0 * cover));
            }
        }
    }

    /// Paints the object itself: pattern, rounded edge, light, highlight.
    fn lay_down(&self, scene: &Scene, object: &Object, swirl: &[f32], light: &mut [Rgb], size: usize) {
        let (pattern_cos, pattern_sin) = direction(object.pattern_angle);
        let bevel = BEVEL * self.radius;
        for row in 0..self.height {
            for column in 0..self.width {
                let distance = self.distances[row * self.width + column];
                // Half a pixel either side of the border: that is all the anti-aliasing a straight edge
                // needs.
                let cover = (0.5 - distance).clamp(0.0, 1.0);
                if cover == 0.0 {
                    continue;
                }
                let number = (self.top + row) * size + self.left + column;
                let (x, y) = self.local(self.left + column, self.top + row);
                let (along, aside) = (pattern_cos * x + pattern_sin * y, pattern_cos * y - pattern_sin * x);
                let ink = object.surface.ink(along, aside, 1.0 / self.radius, swirl[number]);
                let albedo = mix(object.shade, object.ink, ink).map(|c| c * c);

                let (c, r) = (column as isize, row as isize);
                let slope_x = 0.5 * (self.distance(c + 1, r) - self.distance(c - 1, r));
                let slope_y = 0.5 * (self.distance(c, r - 1) - self.distance(c, r + 1));
                let steepness = 1.1 * (1.0 + distance / bevel).clamp(0.0, 1.0);
                let normal = unit_vector([
                    steepness * slope_x + 0.22 * (x / 1.2),
                    steepness * slope_y + 0.22 * (y / 1.2),
                    1.0,
                ]);
                let diffuse = dot(normal, scene.light).max(0.0);
                // Halfway between the lamp and the camera, which looks straight down.
                let halfway = unit_vector([scene.light[0], scene.light[1], scene.light[2] + 1.0]);
                let mirrored = dot(normal, halfway).max(0.0);
                let sharp = mirrored * mirrored * mirrored * mirrored;
                let highlight = object.gloss * 0.5 * sharp * sharp * sharp * sharp * sharp;
                let lit = scale(albedo, AMBIENT + 0.82 * diffuse).map(|c| c + highlight);
                light[number] = mix(light[number], lit, cover);
            }
        }
    }
}

/// The camera: lighting, a darker rim, grain, and the step from light to bytes.
fn photograph(scene: &Scene, light: &[Rgb], size: usize, draw: &mut Draw) -> Vec<u8> {
    let exposure = draw.between(0.88, 1.12);
    let balance = [draw.between(0.95, 1.05), 1.0, draw.between(0.95, 1.05)];
    let tint = scene.lighting.tint();
    let gain: Rgb = std::array::from_fn(|c| exposure * balance[c] * tint[c]);
    let vignette = draw.between(0.0, 0.5);
    let fall = draw.between(0.0, 0.35);
    // A camera turns up its amplifier in the dark, and with it the grain.
    let grain = draw.between(0.006, 0.022) / gain[1].min(1.0).sqrt();
    let mut bytes = Vec::with_capacity(3 * size * size);
    let step = 1.0 / size as f32;
    for (number, pixel) in light.iter().enumerate() {
        let (x, y) = ((number % size) as f32 * step - 0.5, 0.5 - (number / size) as f32 * step);
        let rim = 1.0 - vignette * (x * x + y * y);
        let side = 1.0 + fall * (scene.light[0] * x + scene.light[1] * y);
        let luma = grain * draw.bell();
        let colour_grain = draw.bits().to_le_bytes();
        for c in 0..3 {
            let value = (pixel[c] * gain[c] * rim * side).sqrt();
            // Film and sensors alike give in slowly towards white.
            let value = if value > 0.8 { 0.8 + (value - 0.8) * 0.7 } else { value };
            let speck = luma + grain * (f32::from(colour_grain[c]) / 255.0 - 0.5);
            bytes.push(((value + speck) * 255.0 + 0.5).clamp(0.0, 255.0) as u8);
        }
    }
    bytes
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn unit_vector(v: [f32; 3]) -> [f32; 3] {
    let length = dot(v, v).sqrt();
    v.map(|c| c / length)
}

#[cfg(test)]
mod tests {
    use super::super::class::Split;
    use super::super::draw::Purpose;
    use super::*;

    fn picture(index: u64, size: usize) -> (Scene, Vec<u8>) {
        let scene = Scene::compose(0, Split::Train, index);
        let bytes = render(&scene, size, &mut Draw::new(0, 0, index, Purpose::Pixels));
        (scene, bytes)
    }

    #[test]
    fn every_size_gives_a_full_picture() {
        for size in [8, 16, 33, 64, 224] {
            let (_, bytes) = picture(5, size);
            assert_eq!(bytes.len(), 3 * size * size);
        }
    }

    #[test]
    fn the_main_object_shows_its_colour() {
        // Plain objects only: a pattern may cover the centre. Rings and crescents have nothing there.
        use super::super::shape::Shape;
        use super::super::surface::Surface;
        let mut num_checked = 0;
        for index in 0..300 {
            let (scene, bytes) = picture(index, 64);
            let object = scene.main();
            if object.surface != Surface::Plain || matches!(object.shape, Shape::Ring | Shape::Crescent) {
                continue;
            }
            let (x, y) = ((object.centre.0 * 64.0) as usize, (object.centre.1 * 64.0) as usize);
            let seen: Rgb = std::array::from_fn(|c| f32::from(bytes[3 * (y * 64 + x) + c]) / 255.0);
            // The shade's strongest channel stays the strongest, unless the colour has none.
            let shade = object.shade;
            let strongest = |v: Rgb| (0..3).max_by(|&a, &b| v[a].total_cmp(&v[b])).expect("three channels");
            let spread =
                shade.iter().fold(0.0, |m: f32, c| m.max(*c)) - shade.iter().fold(1.0, |m: f32, c| m.min(*c));
            if spread > 0.75 {
                assert_eq!(strongest(seen), strongest(shade), "picture {index}: {seen:?} for {object:?}");
                num_checked += 1;
            }
        }
        assert!(num_checked >= 10, "{num_checked}");
    }
}
