-- The last bid of each bidder for each auction.
SELECT bidder, auction, date_time, price, channel, url, extra
FROM bid
QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC, channel DESC, url DESC, extra DESC) = 1
