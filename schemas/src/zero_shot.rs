//! File names and syntax of zero-shot classification data.
//!
//! They are those that other CLIP tools already use for webdataset evaluation sets: two text files beside the shards,
//! and a `cls` member with the class number in each sample.

/// Class names, one a line; line 0 is class 0.
pub const CLASS_NAMES_FILE: &str = "classnames.txt";

/// Prompt templates, one a line, each with [`CLASS_PLACEHOLDER`] where the class name goes.
pub const TEMPLATES_FILE: &str = "zeroshot_classification_templates.txt";

/// Stands for the class name in a template.
pub const CLASS_PLACEHOLDER: &str = "{c}";

/// Extension of the member that holds a sample's class number as decimal text.
pub const CLASS_MEMBER: &str = "cls";
