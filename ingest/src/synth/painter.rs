use super::background::Background;
use super::colour::{Rgb, mix, scale};
use super::draw::Draw;
use super::noise::{Noise, wave};

/// Paints a background: a square of light intensities, row by row.
///
/// Colours here are chosen as a screen shows them and squared at the end, so that objects are blended and lit
/// as light is.
pub(super) fn paint(background: Background, size: usize, draw: &mut Draw) -> Vec<Rgb> {
    let canvas = Canvas { size };
    match background {
        Background::Sky => sky(canvas, draw),
        Background::Sunset => sunset(canvas, draw),
        Background::Night => night(canvas, draw),
        Background::Sand => sand(canvas, draw),
        Background::Grass => grass(canvas, draw),
        Background::Water => water(canvas, draw),
        Background::Snow => snow(canvas, draw),
        Background::Brick => brick(canvas, draw),
        Background::Wood => wood(canvas, draw),
        Background::Stone => stone(canvas, draw),
    }
}

#[derive(Clone, Copy)]
struct Canvas {
    size: usize,
}

/// A pixel: its number, and its place from (0, 0) at the top left to (1, 1).
struct Pixel {
    number: usize,
    u: f32,
    v: f32,
}

impl Canvas {
    fn fill(self, mut colour: impl FnMut(Pixel) -> Rgb) -> Vec<Rgb> {
        let step = 1.0 / self.size as f32;
        let mut light = Vec::with_capacity(self.size * self.size);
        for row in 0..self.size {
            for column in 0..self.size {
                let pixel = Pixel {
                    number: light.len(),
                    u: (column as f32 + 0.5) * step,
                    v: (row as f32 + 0.5) * step,
                };
                light.push(colour(pixel).map(|c| c.max(0.0) * c.max(0.0)));
            }
        }
        light
    }
}

/// 0 below `low`, 1 above `high`, a smooth rise between.
fn rise(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

fn sky(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let clouds = Noise::flat(draw.between(1.6, 3.0), draw.between(2.5, 4.5), 5).plane(canvas.size, draw);
    let depths = Noise::flat(3.0, 4.0, 3).plane(canvas.size, draw);
    let cover = draw.between(-0.05, 0.35);
    let (top, bottom) = ([0.22, draw.between(0.42, 0.52), 0.86], [0.66, 0.82, 0.96]);
    canvas.fill(|p| {
        let cloud = rise(cover - 0.05, cover + 0.55, clouds[p.number] + 0.15 * (p.v - 0.5));
        let white =
            mix([0.97, 0.97, 0.98], [0.74, 0.77, 0.83], rise(-0.2, 0.9, depths[p.number] + 0.3 * cloud));
        mix(mix(top, bottom, p.v), white, 0.92 * cloud)
    })
}

fn sunset(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let streaks = Noise::flat(1.5, draw.between(6.0, 9.0), 4).plane(canvas.size, draw);
    let horizon = draw.between(0.85, 1.05);
    canvas.fill(|p| {
        let height = p.v / horizon;
        let upper = mix([0.24, 0.20, 0.46], [0.80, 0.38, 0.42], rise(0.0, 0.6, height));
        let glow = mix(upper, [1.0, 0.72, 0.32], rise(0.45, 1.0, height));
        let cloud = rise(0.05, 0.55, streaks[p.number]);
        mix(glow, mix([0.36, 0.22, 0.40], [0.98, 0.52, 0.36], rise(0.3, 0.9, height)), 0.65 * cloud)
    })
}

fn night(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let haze = Noise::flat(2.0, 2.0, 4).plane(canvas.size, draw);
    let mut light = canvas.fill(|p| {
        let base = mix([0.03, 0.04, 0.13], [0.10, 0.13, 0.30], p.v);
        mix(base, [0.24, 0.22, 0.42], 0.45 * rise(0.0, 0.9, haze[p.number]))
    });
    let unit = canvas.size as f32 / 64.0;
    for _ in 0..draw.below(25) + 30 {
        let (x, y) = (draw.unit() * canvas.size as f32, draw.unit() * canvas.size as f32);
        let strength = draw.between(0.12, 0.9);
        let radius = unit * draw.between(0.5, 0.9);
        let reach = (3.0 * radius).ceil();
        let span = |centre: f32| {
            (centre - reach).max(0.0) as usize..((centre + reach).ceil() as usize).min(canvas.size)
        };
        for row in span(y) {
            for column in span(x) {
                let (dx, dy) = (column as f32 + 0.5 - x, row as f32 + 0.5 - y);
                // A bell by a rational function: no `exp` is the same everywhere.
                let spread = 1.0 + (dx * dx + dy * dy) / (radius * radius);
                let added = strength / (spread * spread * spread);
                light[row * canvas.size + column].iter_mut().for_each(|c| *c += added);
            }
        }
    }
    light
}

fn sand(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let dunes = Noise::ground(2.0, 2.0, 3).plane(canvas.size, draw);
    let grain = Noise::ground(24.0, 24.0, 3).plane(canvas.size, draw);
    let (ripples, slant) = (draw.between(5.0, 9.0), draw.between(-1.5, 1.5));
    let strength = draw.between(0.0, 0.05);
    canvas.fill(|p| {
        let ripple = wave(ripples * p.v + slant * p.u + 0.8 * dunes[p.number]);
        let light = 1.0 + 0.12 * dunes[p.number] + strength * ripple + 0.09 * grain[p.number];
        scale([0.85, 0.74, 0.55], light)
    })
}

fn grass(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let patches = Noise::ground(3.0, 3.0, 3).plane(canvas.size, draw);
    let blades = Noise { tilt: 0.5, ..Noise::flat(22.0, 7.0, 3) }.plane(canvas.size, draw);
    let dry = draw.between(0.0, 0.45);
    canvas.fill(|p| {
        let lush = mix([0.17, 0.36, 0.09], [0.44, 0.62, 0.20], rise(-0.9, 0.9, blades[p.number]));
        let straw = rise(0.0, 0.9, patches[p.number]) * dry;
        scale(mix(lush, [0.62, 0.60, 0.26], straw), 1.0 + 0.15 * patches[p.number])
    })
}

fn water(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let swell = Noise { tilt: 1.6, ..Noise::flat(1.6, 7.0, 2) }.plane(canvas.size, draw);
    let chop = Noise { tilt: 1.6, ..Noise::flat(5.0, 18.0, 3) }.plane(canvas.size, draw);
    let (deep, light) = ([0.03, draw.between(0.24, 0.34), 0.44], [0.16, 0.50, 0.62]);
    canvas.fill(|p| {
        let height = 0.6 * swell[p.number] + 0.6 * chop[p.number];
        let body = mix(deep, light, rise(-0.9, 0.9, height + 0.5 - p.v));
        let glint = rise(0.42, 0.95, height);
        mix(body, [0.86, 0.94, 0.97], 0.75 * glint)
    })
}

fn snow(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let drifts = Noise::ground(1.8, 2.6, 4).plane(canvas.size, draw);
    let grain = Noise::ground(26.0, 26.0, 2).plane(canvas.size, draw);
    canvas.fill(|p| {
        let shaded = rise(-0.1, 0.9, drifts[p.number]);
        let body = mix([0.95, 0.96, 0.98], [0.68, 0.76, 0.88], 0.75 * shaded);
        scale(body, 1.0 + 0.05 * grain[p.number])
    })
}

fn brick(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let courses = draw.between(6.0, 9.0);
    let (shift_u, shift_v) = (draw.unit(), draw.unit());
    let rough = Noise::flat(8.0, 8.0, 4).plane(canvas.size, draw);
    let tints: Vec<f32> = (0..256).map(|_| draw.between(-1.0, 1.0)).collect();
    let mortar = draw.between(0.62, 0.76);
    let pixel = courses / canvas.size as f32;
    canvas.fill(|p| {
        let y = courses * p.v + shift_v;
        let course = y.floor();
        // A brick is twice as long as high, and every other course is shifted by half a brick.
        let x = 0.5 * courses * p.u + shift_u + 0.5 * (course - 2.0 * (0.5 * course).floor());
        let (from_side, from_bed) = (2.0 * edge_distance(x), edge_distance(y));
        let body = ((from_side.min(from_bed) - 0.07) / pixel + 0.5).clamp(0.0, 1.0);
        let tint = tints[(x.floor() as usize * 37 + course as usize * 11) % 256];
        let clay = mix([0.60, 0.27, 0.20], [0.72, 0.40, 0.27], 0.5 + 0.5 * tint);
        let joint = [mortar, mortar * 0.95, mortar * 0.88];
        scale(mix(joint, clay, body), 1.0 + 0.16 * rough[p.number] + 0.05 * tint)
    })
}

/// Distance to the nearest whole number.
fn edge_distance(value: f32) -> f32 {
    let rest = value - value.floor();
    rest.min(1.0 - rest)
}

fn wood(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let planks = draw.between(3.0, 5.5);
    let shift = draw.unit();
    let is_upright = draw.chance(0.5);
    let warp = Noise::flat(2.0, 5.0, 3).plane(canvas.size, draw);
    let fibres = Noise::flat(3.0, 30.0, 3).plane(canvas.size, draw);
    let tints: Vec<f32> = (0..16).map(|_| draw.between(-1.0, 1.0)).collect();
    let pixel = planks / canvas.size as f32;
    let (dark, light) = ([0.42, 0.27, 0.15], [0.70, 0.49, 0.30]);
    canvas.fill(|p| {
        let y = planks * if is_upright { p.u } else { p.v } + shift;
        // Noise was made for boards that lie; for upright ones the picture is read along the other axis.
        let n = if is_upright {
            (p.number % canvas.size) * canvas.size + p.number / canvas.size
        } else {
            p.number
        };
        let tint = tints[y as usize % 16];
        let rings = wave(3.0 * (y + 0.37 * tint) + 1.3 * warp[n] + tint);
        let body = mix(dark, light, (0.62 + 0.16 * rings + 0.28 * fibres[n] + 0.16 * tint).clamp(0.0, 1.0));
        let gap = ((edge_distance(y) - 0.025) / pixel + 0.5).clamp(0.0, 1.0);
        scale(body, 0.35 + 0.65 * gap)
    })
}

fn stone(canvas: Canvas, draw: &mut Draw) -> Vec<Rgb> {
    let stains = Noise::flat(2.5, 2.5, 4).plane(canvas.size, draw);
    let speckle = Noise::flat(20.0, 20.0, 3).plane(canvas.size, draw);
    let cracks = Noise::flat(2.0, 2.0, 3).plane(canvas.size, draw);
    let grey = draw.between(0.44, 0.60);
    let warmth = draw.between(-0.02, 0.03);
    canvas.fill(|p| {
        let crack = 1.0 - 0.4 * (1.0 - rise(0.005, 0.03, cracks[p.number].abs()));
        let light = (1.0 + 0.22 * stains[p.number] + 0.16 * speckle[p.number]) * crack;
        scale([grey + warmth, grey, grey - warmth], light)
    })
}

#[cfg(test)]
mod tests {
    use super::super::draw::Purpose;
    use super::*;

    #[test]
    fn every_background_fills_every_size() {
        for background in Background::ALL {
            for size in [1, 7, 64] {
                let light = paint(background, size, &mut Draw::new(0, 0, 0, Purpose::Pixels));
                assert_eq!(light.len(), size * size);
                assert!(light.iter().flatten().all(|c| (0.0..4.0).contains(c)), "{background:?} at {size}");
            }
        }
    }
}
