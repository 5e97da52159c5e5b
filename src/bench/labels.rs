//! Finds places for labels beside their marks, so that no label covers a mark or another label.

use std::ops::Range;

/// Pixels between a mark and its label, nearest first. From the second on, a line leads from one to the other.
const DISTANCES: [i32; 10] = [8, 20, 34, 50, 70, 95, 120, 150, 185, 220];

/// Half the width and height that a mark keeps free, in pixels.
const MARK: i32 = 5;

/// The directions of a label from its mark, in degrees clockwise from the right, best first.
const DIRECTIONS: [i32; 24] = [
    0, 180, 270, 90, 330, 30, 210, 150, 300, 60, 240, 120, 345, 15, 195, 165, 315, 45, 225, 135, 285, 75,
    255, 105,
];

/// Pixels around a mark in which the line to its label may pass other marks.
const CLOSE: i32 = 7;

/// A pixel, from the left and from the top; or a width and a height in pixels.
pub(super) type Pixel = (i32, i32);

/// A rectangle of pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Area {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) right: i32,
    pub(super) bottom: i32,
}

impl Area {
    fn around((x, y): Pixel, half: i32) -> Self {
        Self { left: x - half, top: y - half, right: x + half, bottom: y + half }
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn holds(&self, other: &Self) -> bool {
        self.left <= other.left
            && other.right <= self.right
            && self.top <= other.top
            && other.bottom <= self.bottom
    }

    /// The part of an area in this one.
    fn part(&self, other: &Self) -> Self {
        Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
    }
}

/// A label that wants a place: its mark, and its width and height.
pub(super) type Wanted = (Pixel, Pixel);

/// Where a label stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The point of it that is next to its mark: at its left, its right, or in the middle of its lower or upper edge.
    pub(super) at: Pixel,
    /// Its upper edge.
    pub(super) top: i32,
    /// Where that point is from the mark: 1 at the right, -1 at the left, 0 above or below.
    pub(super) side: i32,
    /// The end of the line from its mark, if it is not beside it.
    pub(super) leader: Option<Pixel>,
}

/// What a pixel shows.
const MARKED: u8 = 1;
const LABELLED: u8 = 2;
const RULED: u8 = 4;

/// The pixels of a chart that marks and labels leave free.
#[derive(Clone)]
pub(super) struct Room {
    inside: Area,
    /// What each pixel inside shows, row by row.
    pixels: Vec<u8>,
}

impl Room {
    /// The room in a chart with these marks and a line across it at this height.
    pub(super) fn new(inside: Area, marks: impl Iterator<Item = Pixel>, line: Option<i32>) -> Self {
        let pixels = (inside.right - inside.left).max(0) * (inside.bottom - inside.top).max(0);
        let mut room = Self { inside, pixels: vec![0; pixels as usize] };
        marks.for_each(|at| room.fill(&Area::around(at, MARK), MARKED));
        line.into_iter().for_each(|y| room.fill(&Area { top: y - 1, bottom: y + 1, ..inside }, RULED));
        room
    }

    /// The rows of an area, each as a range of pixels.
    fn rows(&self, area: &Area) -> impl Iterator<Item = Range<usize>> + use<> {
        let (inside, part) = (self.inside, self.inside.part(area));
        let width = inside.right - inside.left;
        (part.top..part.bottom).filter(move |_| part.left < part.right).map(move |y| {
            let start = ((y - inside.top) * width + part.left - inside.left) as usize;
            start..start + (part.right - part.left) as usize
        })
    }

    fn fill(&mut self, area: &Area, what: u8) {
        self.rows(area).for_each(|row| self.pixels[row].iter_mut().for_each(|pixel| *pixel |= what));
    }

    fn shows(&self, area: &Area, what: u8) -> bool {
        self.rows(area).any(|row| self.pixels[row].iter().any(|pixel| pixel & what != 0))
    }

    /// The places of labels, each given by its mark and its width and height; `None` for those without room. Labels that
    /// fit beside their marks are placed first, then the others in that of several orders which places the most.
    pub(super) fn places(mut self, wanted: &[Wanted]) -> Vec<Option<Place>> {
        let (near, far) = DISTANCES.split_at(1);
        let beside: Vec<Option<Place>> =
            wanted.iter().map(|(mark, size)| self.place(*mark, *size, near)).collect();
        let as_given: Vec<usize> = (0..wanted.len()).filter(|i| beside[*i].is_none()).collect();
        let mut by_left = as_given.clone();
        by_left.sort_by_key(|i| wanted[*i].0);
        let mut by_top = as_given.clone();
        by_top.sort_by_key(|i| (wanted[*i].0.1, wanted[*i].0.0));
        let backwards = |order: &[usize]| order.iter().rev().copied().collect::<Vec<_>>();
        let orders = [backwards(&by_left), backwards(&by_top), by_left, by_top, as_given];
        let placed = orders.iter().map(|order| {
            let (mut room, mut places) = (self.clone(), beside.clone());
            order.iter().for_each(|i| places[*i] = room.place(wanted[*i].0, wanted[*i].1, far));
            places
        });
        placed.max_by_key(|places| places.iter().flatten().count()).unwrap_or_default()
    }

    /// Takes the nearest free place at these distances from a mark for a label of this width and height. `None` if none is
    /// free.
    fn place(&mut self, mark: Pixel, size: Pixel, distances: &[i32]) -> Option<Place> {
        let candidates =
            distances.iter().flat_map(|far| DIRECTIONS.iter().map(move |direction| (*far, *direction)));
        for (far, direction) in candidates {
            let (area, place) = beside(mark, size, far, direction);
            let line = if far == DISTANCES[0] { Vec::new() } else { line(mark, place.at) };
            // A line over another mark could seem to belong to that one.
            let close = Area::around(mark, CLOSE);
            let is_over =
                |step: &Area| self.shows(step, LABELLED) || !step.meets(&close) && self.shows(step, MARKED);
            let is_free = self.inside.holds(&area)
                && !self.shows(&area, MARKED | LABELLED | RULED)
                && !line.iter().any(is_over);
            if is_free {
                let leader = (!line.is_empty()).then_some(place.at);
                self.fill(&area, LABELLED);
                line.iter().for_each(|step| self.fill(step, LABELLED));
                return Some(Place { leader, ..place });
            }
        }
        None
    }
}

/// The area of a label in a direction from its mark, and its place there.
fn beside((x, y): Pixel, (width, height): Pixel, far: i32, degrees: i32) -> (Area, Place) {
    let (down, right) = f64::from(degrees).to_radians().sin_cos();
    let part = |part: f64| (part * f64::from(far)).round() as i32;
    let (x, y, side) = (x + part(right), y + part(down), part(right).signum());
    let left = x - (1 - side) * width / 2;
    // A label at a side has the middle of its height there.
    let top = if side == 0 { y - (1 - part(down).signum()) * height / 2 } else { y - height / 2 };
    let area = Area { left, top, right: left + width, bottom: top + height };
    // A line leads to the edge of the label, text is placed by its middle.
    let at = if side == 0 { (x, y) } else { (x, top + height / 2) };
    (area, Place { at, side, top, leader: None })
}

/// Small areas along the line between two points.
fn line(from: Pixel, to: Pixel) -> Vec<Area> {
    let (across, down) = (to.0 - from.0, to.1 - from.1);
    let steps = across.abs().max(down.abs()) / 2;
    let step = |n: i32| (from.0 + across * n / steps, from.1 + down * n / steps);
    (0..=steps).filter(|_| steps > 0).map(|n| Area::around(step(n), 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: Area = Area { left: 0, top: 0, right: 600, bottom: 400 };

    #[test]
    fn labels_of_a_crowd_cover_no_mark_and_no_other_label() {
        let marks: Vec<(i32, i32)> = (0..40).map(|n| (200 + n * 37 % 130, 150 + n * 53 % 90)).collect();
        let size = (81, 16);
        let room = Room::new(INSIDE, marks.iter().copied(), Some(300));
        let wanted: Vec<_> = marks.iter().map(|mark| (*mark, size)).collect();
        let placed: Vec<Place> = room.places(&wanted).into_iter().flatten().collect();
        assert!(placed.len() >= 12, "{}", placed.len());
        let area = |place: &Place| {
            let left = place.at.0 - (1 - place.side) * size.0 / 2;
            Area { left, top: place.top, right: left + size.0, bottom: place.top + size.1 }
        };
        let areas: Vec<Area> = placed.iter().map(area).collect();
        for (i, one) in areas.iter().enumerate() {
            assert!(INSIDE.holds(one), "{one:?}");
            assert!(areas[i + 1..].iter().all(|other| !one.meets(other)), "{one:?}");
            assert!(marks.iter().all(|mark| !one.meets(&Area::around(*mark, MARK))), "{one:?}");
            assert!(one.bottom < 300 || one.top >= 300, "{one:?}");
        }
    }

    #[test]
    fn a_lone_label_stands_at_the_right_of_its_mark_and_turns_at_the_edge() {
        let place =
            |mark| Room::new(INSIDE, [mark].into_iter(), None).places(&[(mark, (50, 16))])[0].unwrap();
        assert_eq!(place((100, 100)), Place { at: (108, 100), side: 1, top: 92, leader: None });
        assert_eq!(place((590, 100)), Place { at: (582, 100), side: -1, top: 92, leader: None });
        let room = Room::new(INSIDE, [(100, 100)].into_iter(), None);
        assert_eq!(room.places(&[((100, 100), (700, 16))]), [None]);
    }
}
