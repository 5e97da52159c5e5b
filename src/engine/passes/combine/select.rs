//! An order statistic of the clients' rows, or of mixtures of them.

use crate::engine::passes::blocks::{blocks, mix, reduce};
use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::reducer::{CpuOnly, GpuReduction, Reducer};
use crate::engine::passes::error::PassError;
use crate::engine::passes::pass::for_element;
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::{Element, Merged};
use crate::kernels::lanes::Isa;
use crate::model::tile::{Rows, TileBuffer};
use crate::rules::OrderStatistic;
use crate::rules::mixing::Mixing;
use crate::rules::numeric::eigen::power_of_two_above;
use crate::updates::set::ValueKind;

/// An order statistic of rows.
#[derive(Clone, Debug)]
pub struct Select<'a> {
    /// The clients, by index in the set.
    pub clients: Vec<usize>,
    /// The mixtures of the clients' rows; `None` for the clients' rows themselves.
    pub mixing: Option<&'a Mixing>,
    /// The statistic.
    pub statistic: OrderStatistic,
}

impl<'a> Select<'a> {
    /// The statistic of some clients' rows, or of mixtures of them. Clients with coefficient 0 in all mixtures are not
    /// read.
    pub(super) fn of(statistic: OrderStatistic, mixing: Option<&'a Mixing>, members: &[usize]) -> Self {
        let Some(mixing) = mixing else {
            return Self { clients: members.to_vec(), mixing: None, statistic };
        };
        if let Some(mut clients) = mixing.all_chosen() {
            clients.retain(|client| members.binary_search(client).is_ok());
            return Self { clients, mixing: None, statistic };
        }
        let has_part = mixing.has_part();
        let clients = members.iter().copied().filter(|client| has_part[*client]).collect();
        Self { clients, mixing: Some(mixing), statistic }
    }

    /// Whether the result is exact on every machine: a value of a row, or half way between two.
    pub(super) fn is_exact(&self) -> bool {
        self.mixing.is_none() && self.statistic == OrderStatistic::Median
    }

    fn select<E: Element>(&self, work: &mut TileWork) -> Result<(), PassError> {
        work.read::<E>(&self.clients)?;
        if let Some(mixing) = self.mixing {
            return self.select_mixed::<E>(work, mixing);
        }
        let isa = work.isa;
        match self.statistic {
            // A median is a value of a row, or half way between two.
            OrderStatistic::Median
                if work.tile.dtype == E::DTYPE && work.set().value_kind == ValueKind::AsSent =>
            {
                self.select_blocks::<E, E::Median>(work, |rows, merged| coordinate_median(isa, rows, merged))
            }
            statistic => {
                self.select_blocks::<E, f64>(work, |rows, merged| reduce(isa, statistic, rows, merged))
            }
        }
    }

    /// Merges rows a block of columns at a time. The kernel returns whether all values are finite.
    fn select_blocks<E: Element, F: Merged>(
        &self,
        work: &mut TileWork,
        kernel: impl Fn(&Rows<E>, &mut [F]) -> bool,
    ) -> Result<(), PassError> {
        let (tile, rows) = (work.tile, self.clients.len());
        let mut merged = Vec::new();
        for block in blocks::<E>(rows, work.columns()) {
            merged.resize(block.len(), F::default());
            if !kernel(&work.reader().rows::<E>(tile, rows).at(block.clone()), &mut merged) {
                return Err(PassError::NonFinite);
            }
            work.add_norms::<E>(&self.clients, block.clone());
            work.finish_block(block, &mut merged)?;
        }
        Ok(())
    }

    /// Mixes rows a block of columns at a time, and merges the mixtures.
    fn select_mixed<E: Element>(&self, work: &mut TileWork, mixing: &Mixing) -> Result<(), PassError> {
        let (columns, tile, isa) = (work.columns(), work.tile, work.isa);
        let brings_base = work.set().value_kind == ValueKind::AsSent;
        let most = blocks::<E>(self.clients.len(), columns).map(|block| block.len()).max().unwrap_or(0);
        let mut mixed = work.take_mixed(mixing.len(), most * size_of::<f64>());
        let mut merged = Vec::new();
        for block in blocks::<E>(self.clients.len(), columns) {
            let reader = work.reader();
            let rows = reader.rows::<E>(tile, self.clients.len()).at(block.clone());
            let base = reader.base().get(block.clone()).filter(|_| brings_base).unwrap_or_default();
            mix::<E, E::Mixed>(isa, &rows, &self.clients, mixing, base, 1.0, &mut mixed);
            merged.resize(block.len(), 0.0);
            let mixtures = mixed.rows::<E::Mixed>(mixing.len(), block.len());
            if !reduce(isa, self.statistic, &mixtures, &mut merged) {
                self.select_huge(isa, &rows, mixing, base, &mut mixed, &mut merged)?;
            }
            work.add_norms::<E>(&self.clients, block.clone());
            work.finish_block(block, &mut merged)?;
        }
        work.put_back_mixed(mixed);
        Ok(())
    }

    /// Merges a block with mixtures that the usual float cannot hold. These columns are mixed in f64, divided by a power
    /// of two so that no mixture of finite values overflows. So a value that the statistic leaves out harms nothing.
    fn select_huge<E: Element>(
        &self,
        isa: Isa,
        rows: &Rows<E>,
        mixing: &Mixing,
        base: &[f64],
        mixed: &mut TileBuffer,
        merged: &mut [f64],
    ) -> Result<(), PassError> {
        let huge = clear_huge_columns::<E::Mixed>(mixed, mixing.len(), rows.columns());
        reduce(isa, self.statistic, &mixed.rows::<E::Mixed>(mixing.len(), rows.columns()), merged);
        // Twice the coefficients of the clients, and of the base, whose coefficient is one minus their sum.
        let scale = power_of_two_above(2.0 + 4.0 * self.stretch());
        mix::<E, f64>(isa, rows, &self.clients, mixing, base, scale, mixed);
        let mut in_f64 = vec![0.0; rows.columns()];
        if !reduce(isa, self.statistic, &mixed.rows::<f64>(mixing.len(), rows.columns()), &mut in_f64) {
            return Err(PassError::NonFinite);
        }
        huge.into_iter().for_each(|column| merged[column] = in_f64[column] * scale);
        Ok(())
    }
}

/// Sets the columns with values that are not finite to zero, and returns them.
fn clear_huge_columns<M: Element>(mixed: &mut TileBuffer, rows: usize, columns: usize) -> Vec<usize> {
    let is_huge = |column: &usize| {
        let all = mixed.rows::<M>(rows, columns);
        (0..rows).any(|row| !all.row(row)[*column].widen().is_finite())
    };
    let huge: Vec<usize> = (0..columns).filter(is_huge).collect();
    for row in 0..rows {
        let row: &mut [M] = bytemuck::cast_slice_mut(mixed.row_mut(row));
        huge.iter().for_each(|column| row[*column] = M::zeroed());
    }
    huge
}

impl Reducer for Select<'_> {
    fn clients(&self) -> &[usize] {
        &self.clients
    }

    fn rows_at_once(&self) -> usize {
        self.clients.len().max(1)
    }

    fn uses_base(&self) -> bool {
        self.mixing.is_some()
    }

    fn stretch(&self) -> f64 {
        let length = |mixing: &Mixing, row| mixing.row(row).iter().map(|factor| factor.abs()).sum();
        let rows = |mixing: &Mixing| (0..mixing.len()).map(|row| length(mixing, row)).fold(0.0, f64::max);
        self.mixing.map_or(1.0, rows)
    }

    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError> {
        for_element!(work.tile.working, E => self.select::<E>(work))
    }

    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly> {
        Ok(GpuReduction::Select(self))
    }
}
