//! Tensors as safetensors, piece by piece.
//!
//! The crate's own writer wants all bytes of a file at once, a second copy of what has just been copied. It knows the
//! header, though, and that is all there is to the format.

use bytes::Bytes;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use tch::{Kind, Tensor};

use super::error::TensorsError;

/// Bytes of tensors that are turned into a piece of a file at once.
const PIECE_BYTES: usize = 8 << 20;

/// Kinds of numbers that checkpoints hold.
const KINDS: [(Kind, Dtype); 6] = [
    (Kind::Double, Dtype::F64),
    (Kind::Int64, Dtype::I64),
    (Kind::Float, Dtype::F32),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Half, Dtype::F16),
    (Kind::Uint8, Dtype::U8),
];

fn dtype(kind: Kind) -> Result<Dtype, TensorsError> {
    let found = KINDS.iter().find(|(known, _)| *known == kind);
    found.map(|(_, dtype)| *dtype).ok_or_else(|| TensorsError::Kind(format!("{kind:?}")))
}

/// Returns the bytes of a file that holds these tensors, which lie contiguously in host memory.
///
/// They come in the order of the widths of their numbers, then of names: then each begins where its numbers may.
pub(super) fn pieces(
    named: &[(String, Tensor)],
) -> Result<impl Iterator<Item = Result<Bytes, TensorsError>>, TensorsError> {
    let mut order: Vec<&(String, Tensor)> = named.iter().collect();
    let width = |tensor: &Tensor| std::cmp::Reverse(tensor.kind().elt_size_in_bytes());
    order.sort_by(|(a, x), (b, y)| (width(x), a).cmp(&(width(y), b)));

    let mut start = 0;
    let mut infos = Vec::with_capacity(order.len());
    for (name, tensor) in &order {
        let end = start + tensor.numel() * tensor.kind().elt_size_in_bytes();
        let shape = tensor.size().iter().map(|&length| length as usize).collect();
        infos.push((
            name.clone(),
            TensorInfo { dtype: dtype(tensor.kind())?, shape, data_offsets: (start, end) },
        ));
        start = end;
    }
    let mut header =
        serde_json::to_vec(&Metadata::new(None, infos)?).expect("a header is made of plain values");
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut first = (header.len() as u64).to_le_bytes().to_vec();
    first.append(&mut header);

    let parts = order.into_iter().flat_map(|(_, tensor)| {
        let step = PIECE_BYTES / tensor.kind().elt_size_in_bytes();
        let flat = tensor.view(-1);
        (0..tensor.numel()).step_by(step).map(move |from| part(&flat, from, step))
    });
    Ok(std::iter::once(Ok(Bytes::from(first))).chain(parts))
}

fn part(flat: &Tensor, from: usize, step: usize) -> Result<Bytes, TensorsError> {
    let length = step.min(flat.numel() - from);
    let mut bytes = vec![0; length * flat.kind().elt_size_in_bytes()];
    flat.narrow(0, from as i64, length as i64).f_copy_data_u8(&mut bytes, length)?;
    Ok(bytes.into())
}

/// Reads all tensors of a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, TensorsError> {
    let file = SafeTensors::deserialize(bytes)?;
    file.iter()
        .map(|(name, view)| {
            let kind = KINDS.iter().find(|(_, known)| *known == view.dtype()).map(|(kind, _)| *kind);
            let kind = kind.ok_or_else(|| TensorsError::Kind(format!("{:?}", view.dtype())))?;
            let shape: Vec<i64> = view.shape().iter().map(|&length| length as i64).collect();
            Ok((name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, kind)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn file(named: &[(String, Tensor)]) -> Vec<u8> {
        pieces(named).unwrap().flat_map(|piece| piece.unwrap().to_vec()).collect()
    }

    fn named() -> Vec<(String, Tensor)> {
        let numbers = Tensor::arange(PIECE_BYTES as i64 / 2 + 3, (Kind::Float, Device::Cpu));
        vec![
            ("b.long".to_owned(), numbers.view([1, -1])),
            ("a.scalar".to_owned(), Tensor::from(0.5f32)),
            ("steps".to_owned(), Tensor::from(7i64)),
            ("empty".to_owned(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
            ("half".to_owned(), Tensor::from_slice(&[1.5f32, -2.0]).to_kind(Kind::BFloat16)),
        ]
    }

    #[test]
    fn tensors_survive_writing_and_reading_in_several_pieces() {
        let named = named();
        let read = parse(&file(&named)).unwrap();
        assert_eq!(read.len(), named.len());
        for (name, tensor) in &named {
            let (_, found) = read.iter().find(|(found, _)| found == name).unwrap();
            assert_eq!((found.kind(), found.size()), (tensor.kind(), tensor.size()), "{name}");
            assert!(found.equal(tensor), "{name}");
        }
    }

    #[test]
    fn the_file_is_that_of_the_binding_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("theirs.safetensors");
        // Of one width: the order of kinds of one width is the binding's own affair.
        let named: Vec<_> = named().into_iter().filter(|(_, tensor)| tensor.kind() == Kind::Float).collect();
        Tensor::write_safetensors(&named, &path).unwrap();
        assert!(std::fs::read(&path).unwrap() == file(&named));
    }

    #[test]
    fn a_file_without_tensors_can_be_read() {
        assert!(parse(&file(&[])).unwrap().is_empty());
    }
}
