use crate::LoadError;

pub(super) fn refuse(
    setting: &'static str,
    value: impl ToString,
    rule: &'static str,
) -> Result<(), LoadError> {
    Err(LoadError::Setting { setting, value: value.to_string(), rule })
}

pub(super) fn check_fraction(setting: &'static str, value: f32) -> Result<(), LoadError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    refuse(setting, value, "it must lie between 0 and 1")
}
