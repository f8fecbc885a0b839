-- Winning bids.
SELECT
    auction.id, item_name, description, initial_bid, reserve, auction.date_time, expires, seller, category, auction.extra,
    bidder, price, bid.date_time AS bid_date_time, bid.extra AS bid_extra
FROM auction JOIN bid ON auction.id = bid.auction AND bid.date_time BETWEEN auction.date_time AND expires
QUALIFY row_number() OVER (PARTITION BY auction.id ORDER BY price DESC, bid.date_time, bidder, bid.extra) = 1
