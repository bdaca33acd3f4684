use super::NotOurs;
use super::bits::Bits;
use super::codes::{AcCodes, DcCodes, END_OF_BLOCK};
use super::header::BLOCK;

/// Room for a block, and for what is stored beyond its end because not to store it would take longer: as much as a byte can
/// name, so that no place has to be checked.
pub(super) const ROOM: usize = 4 * BLOCK;

/// Where in a block each coefficient belongs, row after row; from the 64th on just beyond it.
pub(super) const PLACES: [u8; ROOM] = {
    let mut places = [BLOCK as u8; ROOM];
    // Along the diagonals, to and fro.
    let (mut row, mut column, mut at) = (0, 0, 0);
    while at < BLOCK {
        places[at] = (8 * row + column) as u8;
        let is_rising = (row + column) % 2 == 0;
        if is_rising {
            if column == 7 {
                row += 1;
            } else if row == 0 {
                column += 1;
            } else {
                (row, column) = (row - 1, column + 1);
            }
        } else if row == 7 {
            column += 1;
        } else if column == 0 {
            row += 1;
        } else {
            (row, column) = (row + 1, column - 1);
        }
        at += 1;
    }
    places
};

/// Steps between two refills: of at most eleven bits each.
const STEPS_PER_REFILL: usize = 4;

/// Decodes a block to the first 64 places, of which all but the first are zero before.
///
/// Returns whether there is anything but the mean.
#[inline(always)]
pub(super) fn decode(
    bits: &mut Bits<'_>,
    dc: &DcCodes,
    ac: &AcCodes,
    mean: &mut i32,
    block: &mut [i16; ROOM],
) -> Result<bool, NotOurs> {
    let place = |at: usize| usize::from(PLACES[at & (PLACES.len() - 1)]);
    bits.refill()?;
    *mean = mean.wrapping_add(dc.take(bits)?);
    // libjpeg keeps as many bits of it.
    block[0] = *mean as i16;
    let mut at = 0;
    loop {
        bits.refill()?;
        for _ in 0..STEPS_PER_REFILL {
            let pair = ac.peek(bits);
            let first = at + pair.first_ahead();
            if first >= BLOCK - 1 {
                // There is no pair, or only its first symbol belongs to this block.
                bits.refill()?;
                let step = ac.take(bits)?;
                block[place(at + step.ahead)] = step.value;
                at += step.ahead;
                if at >= BLOCK - 1 {
                    return ended(at);
                }
                break;
            }
            bits.skip(pair.length());
            at += pair.second_ahead();
            block[place(at)] = pair.second_value();
            block[place(first)] = pair.first_value();
            if at >= BLOCK - 1 {
                return ended(at);
            }
        }
    }
}

/// Tells blocks that end as they should from those that go on beyond their last coefficient.
fn ended(at: usize) -> Result<bool, NotOurs> {
    if at == BLOCK - 1 || at >= END_OF_BLOCK { Ok(at != END_OF_BLOCK) } else { Err(NotOurs) }
}
