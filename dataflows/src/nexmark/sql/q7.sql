-- The highest bids, by window of ten seconds.
SELECT date_time // 10000 * 10000 AS start, auction, bidder, price, date_time, extra
FROM bid
QUALIFY price = max(price) OVER (PARTITION BY date_time // 10000)
