-- The ten highest bids for each auction.
SELECT
    auction, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder, channel, url, extra) AS rank,
    bidder, price, channel, url, date_time, extra
FROM bid
QUALIFY rank <= 10
