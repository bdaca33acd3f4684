//! What other tools wrote, we read: shards by Python's `webdataset` and `tarfile`, with their oddities, go
//! through `ingest index` into the loader.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use fastclip_loader::Tokenizer;
use fastclip_schemas::Position;
use fastclip_testkit::{Python, run};
use fastclip_tests::{ingest, loader, read_all};
use tempfile::TempDir;

/// Writes shards with webdataset's own writers. It stamps the time as a fraction, so that each member has a
/// PAX header.
const BY_WEBDATASET: &str = r#"
import io, sys, webdataset
from PIL import Image

def picture(number, format):
    image = Image.new("RGB", (40 + number, 36), (10 * number, 255 - 10 * number, 90))
    data = io.BytesIO()
    image.save(data, format)
    return data.getvalue()

with webdataset.ShardWriter(sys.argv[1] + "/part-%04d.tar", maxcount=7, verbose=0) as shards:
    for number in range(20):
        extension, format = [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")][number % 3]
        shards.write({
            # A folder in the key, letters beyond ASCII, and names too long for a plain header.
            "__key__": f"photos/früh-{number:04d}" + "-with-a-very-long-name" * (6 if number % 4 == 0 else 0),
            extension: picture(number, format),
            "txt": f"a photo of number {number}",
            "json": {"number": number},
            "cls": number % 5,
        })
"#;

/// Writes a shard with `tarfile` in the format of the given name, with what else people put into tars.
const BY_TARFILE: &str = r#"
import io, sys, tarfile
from PIL import Image

folder, format = sys.argv[1:]
with tarfile.open(f"{folder}/odd.tar", "w", format=getattr(tarfile, format)) as tar:
    def add(name, data, **fields):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in fields.items():
            setattr(info, field, value)
        tar.addfile(info, io.BytesIO(data))

    add("photos", b"", type=tarfile.DIRTYPE)
    add("__about__", b"metadata, not a sample")
    for number in range(9):
        data = io.BytesIO()
        Image.new("RGB", (33, 50 + number), (200, 20 * number, 40)).save(data, "JPEG")
        key = f"photos/{number:03d}" + "x" * (120 if number % 2 and format != "USTAR_FORMAT" else 0)
        # Capital letters, and a second dot: the extension begins at the first one.
        add(key + ".JPG", data.getvalue(), uname="somebody", mtime=1_700_000_000, mode=0o444)
        add(key + ".seg.png", b"some mask")
        add(key + ".txt", f"odd sample {number}".encode())
    add("photos/link.jpg", b"", type=tarfile.SYMTYPE, linkname="000.jpg")
"#;

/// Makes a folder of shards with a script, indexes it, and returns it.
fn indexed(script: &str, more: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut arguments = vec![folder.path().to_str().unwrap()];
    arguments.extend(more);
    Python::new().run(script, &arguments);
    run(&mut ingest(["index", folder.path().to_str().unwrap()])).assert_code(0);
    folder
}

/// Has the loader read everything in order and compares each row with the caption that belongs to it.
fn assert_delivers(folder: &TempDir, captions: &[String], classes: &[i32]) {
    let location = folder.path().to_str().unwrap();
    let loader = loader(location).context_length(32).build().unwrap();
    assert_eq!(loader.num_samples(), captions.len() as u64);
    let tokenizer = Tokenizer::clip();
    let mut next = 0;
    for batch in loader.stream(Position::default(), Position::start_of(1)).unwrap() {
        let batch = batch.unwrap();
        assert_eq!(batch.images().len(), batch.len() * 3 * 32 * 32);
        for row in 0..batch.len() {
            assert_eq!(batch.sample_ids()[row].0, next as u64);
            assert_eq!(batch.classes()[row], classes[next], "sample {next}");
            let tokens = &batch.tokens()[row * 32..][..32];
            assert_eq!(tokens, tokenizer.encode(&captions[next], 32), "sample {next}: {}", captions[next]);
            next += 1;
        }
    }
    assert_eq!(next, captions.len());
    assert_eq!(loader.stats().num_bad(), 0, "{}", loader.stats());
}

#[test]
fn shards_by_webdataset_are_delivered_whole_and_in_order() {
    let folder = indexed(BY_WEBDATASET, &[]);
    let captions: Vec<String> = (0..20).map(|number| format!("a photo of number {number}")).collect();
    let classes: Vec<i32> = (0..20).map(|number| number % 5).collect();
    assert_delivers(&folder, &captions, &classes);
}

#[test]
fn keys_of_webdataset_keep_folders_length_and_letters() {
    let folder = indexed(BY_WEBDATASET, &[]);
    let samples = read_all(folder.path().to_str().unwrap());
    assert_eq!(samples[1].key, "photos/früh-0001");
    assert_eq!(samples[4].key, format!("photos/früh-0004{}", "-with-a-very-long-name".repeat(6)));
    assert_eq!(samples[8].shard, "part-0001.tar");
}

#[test]
fn shards_by_tarfile_are_delivered_in_every_format_it_writes() {
    for format in ["PAX_FORMAT", "GNU_FORMAT", "USTAR_FORMAT"] {
        let folder = indexed(BY_TARFILE, &[format]);
        let samples = read_all(folder.path().to_str().unwrap());
        let fields: Vec<&str> = samples[0].members.keys().map(String::as_str).collect();
        assert_eq!(fields, ["jpg", "seg.png", "txt"], "{format}");
        let captions: Vec<String> = (0..9).map(|number| format!("odd sample {number}")).collect();
        assert_delivers(&folder, &captions, &[-1; 9]);
    }
}

#[test]
fn indexing_leaves_foreign_shards_as_they_were() {
    let folder = TempDir::new().unwrap();
    let location = folder.path().to_str().unwrap();
    Python::new().run(BY_WEBDATASET, &[location]);
    let before = std::fs::read(folder.path().join("part-0000.tar")).unwrap();
    run(&mut ingest(["index", location])).assert_code(0);
    assert!(before == std::fs::read(folder.path().join("part-0000.tar")).unwrap());
    run(&mut ingest(["verify", location])).assert_code(0);
}
