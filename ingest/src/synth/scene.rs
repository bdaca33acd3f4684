use super::background::Background;
use super::class::{Class, Split};
use super::colour::{Colour, Rgb};
use super::draw::{Draw, Purpose};
use super::lighting::Lighting;
use super::place::Place;
use super::shape::Shape;
use super::surface::Surface;

/// How large the main object is, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Medium,
    Large,
}

impl Size {
    /// The word for it in tables.
    pub(super) fn name(self) -> &'static str {
        self.words()[0]
    }

    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Size::Small => &["small", "little"],
            Size::Medium => &["medium", "medium-sized"],
            Size::Large => &["large", "big", "huge"],
        }
    }

    /// Range of radii, in widths of the picture.
    fn radii(self) -> (f32, f32) {
        match self {
            Size::Small => (0.15, 0.18),
            Size::Medium => (0.20, 0.235),
            Size::Large => (0.26, 0.31),
        }
    }
}

/// One thing in a picture. Lengths are in widths of the picture, angles in turns.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) shape: Shape,
    pub(super) colour: Colour,
    pub(super) surface: Surface,
    pub(super) place: Place,
    pub(super) centre: (f32, f32),
    pub(super) radius: f32,
    pub(super) angle: f32,
    /// Width over height is the square of this: nothing is photographed exactly from the front.
    pub(super) stretch: f32,
    /// The colour's shade on this object, as a screen shows it.
    pub(super) shade: Rgb,
    /// Colour of the pattern, if the surface has one.
    pub(super) ink: Rgb,
    pub(super) pattern_angle: f32,
    pub(super) gloss: f32,
}

/// One picture as data: all that a caption may mention and all that the renderer must know beyond pixels.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) background: Background,
    pub(super) lighting: Lighting,
    /// Direction towards the light: right, up, and out of the picture.
    pub(super) light: [f32; 3],
    pub(super) size: Size,
    /// One to three, the main one first. It is the largest.
    pub(super) objects: Vec<Object>,
}

impl Scene {
    /// The scene of one picture.
    pub(super) fn compose(seed: u64, split: Split, index: u64) -> Scene {
        let class = Class::of_picture(seed, split, index);
        let draw = &mut Draw::new(seed, split as u64, index, Purpose::Scene);
        let backgrounds: Vec<_> = Background::ALL.into_iter().filter(|b| !b.hides(class.colour)).collect();
        let background = draw.pick(&backgrounds);
        let lighting = match draw.below(10) {
            0..6 => Lighting::Normal,
            6 => Lighting::Bright,
            7 => Lighting::Dim,
            _ => Lighting::Warm,
        };
        let side = if draw.chance(0.5) { 1.0 } else { -1.0 };
        let light = unit_vector([side * draw.between(0.35, 0.75), draw.between(0.35, 0.75), 0.8]);
        let size = draw.pick(&[Size::Small, Size::Medium, Size::Large]);
        let num_objects = [1, 1, 1, 2, 2, 2, 2, 2, 3, 3][draw.below(10)];
        let mut scene = Scene { background, lighting, light, size, objects: Vec::with_capacity(num_objects) };
        let (low, high) = size.radii();
        let radius = draw.between(low, high);
        let place = if draw.chance(0.2) { Place::CENTRE } else { draw.pick(&Place::all()) };
        scene.objects.push(object(class, place, radius, 0.3, draw));
        for _ in 1..num_objects {
            scene.add_companion(draw);
        }
        scene
    }

    pub(super) fn main(&self) -> &Object {
        &self.objects[0]
    }

    pub(super) fn companions(&self) -> &[Object] {
        &self.objects[1..]
    }

    /// The class of the picture.
    pub(super) fn class(&self) -> Class {
        Class { colour: self.main().colour, shape: self.main().shape }
    }

    /// Adds a smaller object where there is room, in a colour that no other object has.
    fn add_companion(&mut self, draw: &mut Draw) {
        let radius = (self.main().radius * draw.between(0.5, 0.68)).clamp(0.095, 0.15);
        let free: Vec<Place> =
            Place::all().into_iter().filter(|place| self.has_room(*place, radius)).collect();
        if free.is_empty() {
            return;
        }
        let place = draw.pick(&free);
        let fitting: Vec<Class> = Class::all()
            .filter(|c| !c.is_held_out() && !self.background.hides(c.colour))
            .filter(|c| {
                self.objects.iter().all(|object| object.colour != c.colour && object.shape != c.shape)
            })
            .collect();
        self.objects.push(object(draw.pick(&fitting), place, radius, 0.7, draw));
    }

    fn has_room(&self, place: Place, radius: f32) -> bool {
        let (x, y) = middle_of(place, radius);
        self.objects.iter().all(|other| {
            let (dx, dy) = (other.centre.0 - x, other.centre.1 - y);
            // Shapes do not fill their circles, so a slight overlap of circles is none of the objects.
            (dx * dx + dy * dy).sqrt() > other.radius + radius + 0.02
        })
    }
}

fn object(class: Class, place: Place, radius: f32, plain: f32, draw: &mut Draw) -> Object {
    let Class { colour, shape } = class;
    let surface = if draw.chance(plain) { Surface::Plain } else { draw.pick(&Surface::PATTERNED) };
    let (x, y) = middle_of(place, radius);
    let centre = (x + draw.between(-0.02, 0.02), y + draw.between(-0.02, 0.02));
    let brightness = draw.between(0.92, 1.06);
    let shade = colour.shade().map(|c| (c * brightness + draw.between(-0.03, 0.03)).clamp(0.02, 1.0));
    // Black and white differ from their patterns only in lightness: were the ink stronger, a chequered white
    // square could as well be a chequered black one.
    let ink = match colour {
        Colour::Black => shade.map(|c| c + 0.36),
        Colour::White => shade.map(|c| c * 0.62),
        _ if colour.is_light() => shade.map(|c| c * 0.42),
        _ => shade.map(|c| 0.25 * c + 0.70),
    };
    Object {
        shape,
        colour,
        surface,
        place,
        centre,
        radius,
        angle: draw.between(-1.0, 1.0) * shape.max_tilt(),
        stretch: draw.between(0.95, 1.05),
        shade,
        ink,
        pattern_angle: draw.between(-0.5, 0.5),
        gloss: draw.between(0.05, 0.6),
    }
}

/// Where an object of this size is centred in a field: larger ones stay closer to the middle, so that they
/// are not cut off.
fn middle_of(place: Place, radius: f32) -> (f32, f32) {
    let reach = 0.48 - radius;
    (0.5 + reach * f32::from(place.across), 0.5 + reach * f32::from(place.down))
}

fn unit_vector(v: [f32; 3]) -> [f32; 3] {
    let length = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
    v.map(|c| c / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_object_is_the_largest_and_has_the_class_of_the_picture() {
        for index in 0..500 {
            let scene = Scene::compose(1, Split::HeldOut, index);
            assert_eq!(scene.class(), Class::of_picture(1, Split::HeldOut, index));
            for other in scene.companions() {
                assert!(other.radius < 0.8 * scene.main().radius, "picture {index}: {scene:?}");
            }
        }
    }

    #[test]
    fn no_training_scene_shows_a_held_out_combination_anywhere() {
        for index in 0..2_000 {
            for object in Scene::compose(0, Split::Train, index).objects {
                let class = Class { colour: object.colour, shape: object.shape };
                assert!(!class.is_held_out(), "picture {index}: {}", class.name());
            }
        }
    }

    #[test]
    fn objects_lie_inside_the_picture_and_contrast_with_it() {
        for index in 0..500 {
            let scene = Scene::compose(2, Split::Train, index);
            for object in &scene.objects {
                let (x, y) = object.centre;
                let margin = object.radius - 0.05;
                assert!(
                    x > margin && x < 1.0 - margin && y > margin && y < 1.0 - margin,
                    "picture {index}: {object:?}"
                );
                assert!(!scene.background.hides(object.colour), "picture {index}: {object:?}");
            }
        }
    }

    #[test]
    fn most_pictures_show_more_than_one_object() {
        let several = (0..1_000).filter(|&i| Scene::compose(0, Split::Train, i).objects.len() > 1).count();
        assert!((600..800).contains(&several), "{several} of 1000");
    }
}
