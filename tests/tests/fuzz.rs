//! The fuzz targets on some seeded damage. `scripts/fuzz` runs them for longer, under libFuzzer where there is one.

use std::panic::catch_unwind;

use fastclip_fuzz::{Damage, Target};

const NUM_INPUTS: usize = 3000;

fn stands_damage(target: Target) {
    for seed in target.seeds() {
        target.feed(&seed);
    }
    for (number, input) in Damage::new(target, 0).take(NUM_INPUTS).enumerate() {
        let result = catch_unwind(|| target.feed(&input));
        assert!(result.is_ok(), "{} fails on input {number}: {}", target.name(), input.escape_ascii());
    }
}

#[test]
fn tars_of_any_bytes_are_read_or_refused() {
    stands_damage(Target::Tar);
}

#[test]
fn manifests_of_any_bytes_are_read_or_refused() {
    stands_damage(Target::Manifest);
}

#[test]
fn indexes_of_any_bytes_are_read_or_refused() {
    stands_damage(Target::Index);
}

#[test]
fn images_of_any_bytes_are_decoded_or_refused() {
    stands_damage(Target::Image);
}

#[test]
fn captions_of_any_bytes_are_encoded() {
    stands_damage(Target::Caption);
}

#[test]
fn damage_reaches_beyond_the_first_check_of_each_reader() {
    use fastclip_schemas::Manifest;
    use fastclip_shards::ShardIndex;
    use fastclip_shards::tar::Scanner;

    let count = |target, is_read: fn(&[u8]) -> bool| {
        Damage::new(target, 0).take(NUM_INPUTS).filter(|input| is_read(input)).count()
    };
    let num_tars = count(Target::Tar, |bytes| Scanner::new(bytes).flatten().count() > 1);
    let num_manifests = count(Target::Manifest, |bytes| Manifest::from_json(bytes).is_ok());
    let num_indexes =
        count(Target::Index, |bytes| bytes.get(1..).is_some_and(|index| ShardIndex::decode(index).is_ok()));
    assert!(
        num_tars > 200 && num_manifests > 20 && num_indexes > 10,
        "{num_tars}, {num_manifests}, {num_indexes}"
    );
}
