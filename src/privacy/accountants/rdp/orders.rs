//! Lists of orders of Renyi divergences.

/// Orders, ascending, each above 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Orders(Vec<f64>);

/// A list of orders; epsilon is the least over the list.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
pub enum OrderList {
    /// 1.05 to 10.9 by tenths, integers to 256, and five up to 1024.
    #[default]
    All,
    /// Integers only, which hold for discrete noise.
    Integers,
    /// The default list of dp_accounting.
    DpAccounting,
    /// The default list of Opacus.
    Opacus,
}

impl OrderList {
    /// The orders of the list.
    pub fn orders(self) -> Orders {
        match self {
            Self::All => Orders::all(),
            Self::Integers => Orders::integers(),
            Self::DpAccounting => Orders::sorted(tenths().chain(whole(11..=63)).chain(HIGH)),
            Self::Opacus => Orders::sorted(tenths().chain(whole(12..=63))),
        }
    }
}

/// The high orders of dp_accounting's list.
const HIGH: [f64; 4] = [128.0, 256.0, 512.0, 1024.0];

/// 1.1 to 10.9, as both libraries compute them.
fn tenths() -> impl Iterator<Item = f64> {
    (1..100).map(|tenth| 1.0 + f64::from(tenth) / 10.0)
}

fn whole(range: std::ops::RangeInclusive<u16>) -> impl Iterator<Item = f64> {
    range.map(f64::from)
}

impl Orders {
    /// Integers only: 2 to 256, then five up to 1024, where tiny sampling rates have their least epsilon.
    pub fn integers() -> Self {
        Self::sorted(whole(2..=256).chain([320.0, 384.0, 512.0, 768.0, 1024.0]))
    }

    /// Integers, and fractional orders from 1.05 to 10.9, where large epsilons are least.
    pub fn all() -> Self {
        Self::sorted(Self::integers().0.into_iter().chain([1.05]).chain(tenths()))
    }

    fn sorted(orders: impl Iterator<Item = f64>) -> Self {
        let mut orders: Vec<f64> = orders.collect();
        orders.sort_by(f64::total_cmp);
        orders.dedup();
        Self(orders)
    }

    /// Wraps orders that are ascending and each above 1.
    pub(super) fn from_sorted(orders: Vec<f64>) -> Self {
        Self(orders)
    }

    /// The orders, ascending.
    pub fn get(&self) -> &[f64] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_orders_hold_the_others() {
        let all = OrderList::All.orders();
        for list in [OrderList::Integers, OrderList::DpAccounting, OrderList::Opacus] {
            for order in list.orders().get() {
                assert!(all.get().contains(order), "{list:?} {order}");
            }
        }
        assert!(all.get().windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(OrderList::DpAccounting.orders().get().len(), 99 + 53 + 4);
    }
}
