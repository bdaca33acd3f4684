use super::draw::{Draw, Purpose};
use super::phrase::{as_sentence, fill, with_article};
use super::scene::{Object, Scene, Size};
use super::surface::Surface;

/// Prompts for zero-shot classification, in the manner of the captions.
pub(super) const CLASS_TEMPLATES: [&str; 8] = [
    "a photo of a {c}.",
    "a picture of a {c}.",
    "a {c}.",
    "one {c}.",
    "a large {c}.",
    "a small {c}.",
    "a photo of a {c} in the centre.",
    "there is a {c} in this photo.",
];

/// Sentences about one picture. Slots: the main object, its place, where it lies (`setting`), what that is
/// (`ground`), the light, and the other objects.
const TEMPLATES: [&str; 14] = [
    "{main}[ {place}][ {setting}][, with {others}][ {light}]",
    "{main}[ {setting}][, {place}][, and {others}][, {light}]",
    "a photo of {main}[ {place}][ {setting}][ and {others}][, {light}]",
    "a photo of {main}[ {setting}][ {light}][, {place}][, next to {others}]",
    "a picture[ taken {light}] of {main}[ {place}][ {setting}][, also {others}]",
    "[{setting}, ]{main}[ {place}][ and {others}][, {light}]",
    "[{setting} ]there is {main}[ {place}][, with {others}][ {light}]",
    "[{place}, ]{main}[ {setting}][, and {others}][ {light}]",
    "{ground} with {main}[ {place}][ and {others}][, {light}]",
    "{ground}[ {light}]: {main}[ {place}][, {others}]",
    "a photo of {ground} showing {main}[ {place}][, and {others}][ {light}]",
    "{main}[ together with {others}][ {setting}][, the larger one {place_of_several}][ {light}]",
    "[{others} beside ]{main}[ {place}][ {setting}][, {light}]",
    "someone put {main}[ {place}][ {setting}][ and added {others}][ {light}]",
];

/// Sentences that name nothing but the main object.
const BRIEF_TEMPLATES: [&str; 4] =
    ["a photo of {main}", "{main}", "a picture of {main}[ {setting}]", "{main}[ {setting}]"];

/// A caption for the scene.
///
/// Nearly all captions name colour, shape, place and surroundings of the main object and the colour and shape
/// of a second one, so that a picture can be found by its caption among a thousand; a few say little, as
/// people do.
pub(super) fn caption(scene: &Scene, seed: u64, split: u64, index: u64) -> String {
    let draw = &mut Draw::new(seed, split, index, Purpose::Words);
    let is_brief = draw.chance(0.04);
    let template = if is_brief { draw.pick(&BRIEF_TEMPLATES) } else { draw.pick(&TEMPLATES) };
    let main = main_object(scene, is_brief, draw);
    let mut mention = |probability: f32, words: &'static [&'static str]| {
        if draw.chance(probability) { draw.word(words) } else { "" }
    };
    let setting = mention(0.93, scene.background.settings());
    let ground = mention(1.0, scene.background.nouns());
    let place = mention(0.93, scene.main().place.words());
    let light = scene.lighting.words().map_or("", |words| mention(0.5, words));
    let others = other_objects(scene, draw);
    let text = fill(template, |slot| match slot {
        "main" => &main,
        "place" => place,
        "place_of_several" if others.is_empty() => "",
        "place_of_several" => place,
        "setting" => setting,
        "ground" => ground,
        "light" => light,
        "others" => &others,
        other => unreachable!("no template has a slot `{other}`"),
    });
    if draw.chance(0.4) { as_sentence(&text) } else { text }
}

/// `a large crimson striped disc`.
fn main_object(scene: &Scene, is_brief: bool, draw: &mut Draw) -> String {
    let mentions_size = !is_brief && draw.chance(if scene.size == Size::Medium { 0.12 } else { 0.6 });
    let size = if mentions_size { draw.word(scene.size.words()) } else { "" };
    describe(scene.main(), size, if is_brief { 0.3 } else { 0.9 }, draw)
}

/// `a small green star at the top and a tiny pink ring`, or nothing.
fn other_objects(scene: &Scene, draw: &mut Draw) -> String {
    let mut phrases = Vec::new();
    for (object, probability) in scene.companions().iter().zip([0.95, 0.7]) {
        if !draw.chance(probability) {
            continue;
        }
        let size = if draw.chance(0.4) { draw.pick(&["small", "smaller", "tiny", "little"]) } else { "" };
        let mut phrase = describe(object, size, 0.5, draw);
        if draw.chance(0.55) {
            phrase.push(' ');
            phrase.push_str(draw.word(object.place.words()));
        }
        phrases.push(phrase);
    }
    phrases.join(" and ")
}

/// Names an object, with its surface now before the colour, now after it, now after the shape.
fn describe(object: &Object, size: &str, probability_of_surface: f32, draw: &mut Draw) -> String {
    // A plain surface is what everyone expects: it is seldom worth a word.
    let scarcity = if object.surface == Surface::Plain { 0.25 } else { 1.0 };
    let mentions_surface = draw.chance(probability_of_surface * scarcity);
    let colour = draw.word(object.colour.words());
    let shape = draw.word(object.shape.words());
    let mut words = vec![size];
    if !mentions_surface {
        words.extend([colour, shape]);
    } else if let Some(trailing) = object.surface.trailing_words().filter(|_| draw.chance(0.25)) {
        words.extend([colour, shape, draw.pick(trailing)]);
    } else {
        let surface = draw.word(object.surface.words());
        words.extend(if draw.chance(0.7) { [surface, colour, shape] } else { [colour, surface, shape] });
    }
    words.retain(|word| !word.is_empty());
    with_article(&words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::class::Split;
    use super::*;

    fn captions(count: u64) -> impl Iterator<Item = (Scene, String)> {
        (0..count).map(|index| {
            let scene = Scene::compose(4, Split::Train, index);
            let caption = caption(&scene, 4, 0, index);
            (scene, caption)
        })
    }

    #[test]
    fn captions_name_colour_and_shape_of_the_main_object() {
        for (scene, caption) in captions(2_000) {
            let lower = caption.to_lowercase();
            let main = scene.main();
            assert!(main.colour.words().iter().any(|word| lower.contains(word)), "{caption}: {main:?}");
            assert!(main.shape.words().iter().any(|word| lower.contains(word)), "{caption}: {main:?}");
        }
    }

    #[test]
    fn captions_are_clean_text() {
        for (_, caption) in captions(2_000) {
            assert!(!caption.contains(['{', '}', '[', ']']), "{caption}");
            assert!(
                !caption.contains("  ") && !caption.contains(" ,") && caption.trim() == caption,
                "{caption}"
            );
        }
    }

    #[test]
    fn captions_tell_pictures_apart() {
        let distinct: std::collections::BTreeSet<String> =
            captions(1_000).map(|(_, caption)| caption).collect();
        assert!(distinct.len() > 960, "{} distinct captions of 1000", distinct.len());
    }

    #[test]
    fn most_captions_mention_a_second_object() {
        let mut num_with = 0;
        let mut num_told = 0;
        for (scene, caption) in captions(1_000) {
            let lower = caption.to_lowercase();
            if let Some(second) = scene.companions().first() {
                num_with += 1;
                num_told += usize::from(second.shape.words().iter().any(|word| lower.contains(word)));
            }
        }
        assert!(num_told * 100 > num_with * 80, "{num_told} of {num_with}");
    }

    #[test]
    fn every_template_can_be_filled() {
        for template in TEMPLATES.iter().chain(&BRIEF_TEMPLATES) {
            assert!(!fill(template, |_| "x").contains(['{', '[']), "{template}");
        }
        for template in CLASS_TEMPLATES {
            assert!(template.contains(fastclip_schemas::zero_shot::CLASS_PLACEHOLDER), "{template}");
        }
    }
}
