use super::colour::Colour;
use super::draw::{Draw, Purpose};
use super::shape::Shape;

/// Which part of a world a picture belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    Train,
    HeldOut,
}

impl Split {
    /// Its folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::HeldOut => "held-out",
        }
    }
}

/// The class of a picture: colour and shape of its main object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) colour: Colour,
    pub(super) shape: Shape,
}

impl Class {
    /// All hundred, by number.
    pub(super) fn all() -> impl Iterator<Item = Class> {
        Colour::ALL
            .into_iter()
            .flat_map(|colour| Shape::ALL.into_iter().map(move |shape| Class { colour, shape }))
    }

    /// Its line in the list of class names.
    pub(super) fn number(self) -> usize {
        self.colour as usize * Shape::ALL.len() + self.shape as usize
    }

    /// `red circle`.
    pub(super) fn name(self) -> String {
        format!("{} {}", self.colour.name(), self.shape.name())
    }

    /// Whether no training picture shows this combination, not even as a second object.
    ///
    /// The rule is the same for every seed, so that runs on different worlds can be compared. It takes two of
    /// the ten colours of each shape and two of the ten shapes of each colour: what a model has never seen is
    /// the combination, not its parts.
    pub(super) fn is_held_out(self) -> bool {
        (self.colour as usize + 3 * self.shape as usize).is_multiple_of(5)
    }

    /// The class of a picture's main object.
    ///
    /// Training pictures go round the combinations that are not held out, held-out pictures alternate between
    /// those and the ones that are. Each round is shuffled anew, so that every class is as frequent as any
    /// other of its kind.
    pub(super) fn of_picture(seed: u64, split: Split, index: u64) -> Class {
        let (from_held_out, turn) = match split {
            Split::Train => (false, index),
            Split::HeldOut => (index % 2 == 1, index / 2),
        };
        let mut round: Vec<Class> =
            Class::all().filter(|class| class.is_held_out() == from_held_out).collect();
        let len = round.len() as u64;
        // Streams of rounds must not meet those of pictures: they take the upper two values of the split's
        // four bits.
        let stream = 2 + split as u64;
        let number = 2 * (turn / len) + u64::from(from_held_out);
        Draw::new(seed, stream, number, Purpose::Scene).shuffle(&mut round);
        round[(turn % len) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_and_every_shape_loses_two_combinations() {
        for colour in Colour::ALL {
            assert_eq!(Class::all().filter(|c| c.colour == colour && c.is_held_out()).count(), 2);
        }
        for shape in Shape::ALL {
            assert_eq!(Class::all().filter(|c| c.shape == shape && c.is_held_out()).count(), 2);
        }
    }

    #[test]
    fn numbers_follow_the_list() {
        for (number, class) in Class::all().enumerate() {
            assert_eq!(class.number(), number);
        }
    }

    #[test]
    fn held_out_combinations_never_occur_in_training() {
        for index in 0..2_000 {
            assert!(!Class::of_picture(0, Split::Train, index).is_held_out(), "picture {index}");
        }
    }

    #[test]
    fn every_class_occurs_in_the_held_out_split() {
        // 80 seen combinations take every other picture, so 160 pictures show each once.
        let mut seen = [false; 100];
        for index in 0..160 {
            seen[Class::of_picture(7, Split::HeldOut, index).number()] = true;
        }
        assert!(seen.iter().all(|seen| *seen), "{seen:?}");
    }

    #[test]
    fn half_of_the_held_out_pictures_show_a_held_out_combination() {
        let count = (0..1_000).filter(|&i| Class::of_picture(0, Split::HeldOut, i).is_held_out()).count();
        assert_eq!(count, 500);
    }
}
