//! What our HTML pages share: the look, and numbers in words.
//!
//! A page is one file that can be mailed, archived and opened years later. It has no script and no address that a browser
//! would ask for anything, and says so to the browser; charts are SVG, images are part of it. All text from outside goes
//! through [`escaped`].

mod figures;
mod page;

pub use figures::{count, duration, escaped, measure, percent};
pub use page::{Page, data_url};
