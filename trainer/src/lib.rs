//! Trains CLIP models with the FastCLIP objectives.

pub mod distributed;
