/// Splits a member's name into the key of its sample and its lower-case extension, by the rules of webdataset.
///
/// The key ends at the first dot of the base name, so `a/b.seg.png` is field `seg.png` of sample `a/b`. `None` for names
/// that belong to no sample: those without a dot, and metadata (a first component like `__meta__`).
pub fn split_name(name: &str) -> Option<(&str, String)> {
    let first_component = name.split('/').next().unwrap_or_default();
    if first_component.len() >= 4 && first_component.starts_with("__") && first_component.ends_with("__") {
        return None;
    }
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    if dot == base && !is_dotless_folder(&name[..base]) {
        return None;
    }
    Some((&name[..dot], name[dot + 1..].to_lowercase()))
}

/// Whether `folder`, which ends in a slash, has a last component without a dot. webdataset's pattern then takes
/// `a/.jpg` as field `jpg` of a sample `a/`; odd, but the two must agree on what a sample is.
fn is_dotless_folder(folder: &str) -> bool {
    let Some(trimmed) = folder.strip_suffix('/') else { return false };
    let last = trimmed.rsplit('/').next().unwrap_or_default();
    !last.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_as_in_webdataset() {
        // Each right side is what `re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)` gives, lower-cased.
        let cases = [
            ("000030017.jpg", Some(("000030017", "jpg"))),
            ("a/b.seg.png", Some(("a/b", "seg.png"))),
            ("a.b/c.JPG", Some(("a.b/c", "jpg"))),
            ("./x.txt", Some(("./x", "txt"))),
            ("x.", Some(("x", ""))),
            ("README", None),
            (".hidden", None),
            ("a/.jpg", Some(("a/", "jpg"))),
            ("a.b/.jpg", None),
            ("/.jpg", Some(("/", "jpg"))),
            ("__meta__.json", Some(("__meta__", "json"))),
            ("__index__/x.json", None),
            ("", None),
        ];
        for (name, expected) in cases {
            let split = split_name(name);
            let split = split.as_ref().map(|(key, extension)| (*key, extension.as_str()));
            assert_eq!(split, expected, "{name}");
        }
    }
}
