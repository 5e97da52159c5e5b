//! The uniform quantizer with a dead zone: magnitudes below a border become zero, the others are rounded.

/// Which magnitudes become zero, and how the others are rounded, in steps: with `t = |x| / step`, the code is zero if
/// `t < zero_below`, else `floor(t + rounding)`, but at least one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DeadZone {
    /// Half the width of the zone around zero, in steps: at least `1 - rounding`, less than `2 - rounding`.
    pub zero_below: f32,
    /// What is added before rounding down, 0 to 1; plain rounding is 0.5.
    pub rounding: f32,
}

impl DeadZone {
    /// The zone of rounding alone.
    pub fn of(rounding: f32) -> Self {
        Self { zero_below: 1.0 - rounding, rounding }
    }
}
