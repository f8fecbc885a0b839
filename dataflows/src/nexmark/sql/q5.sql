-- The auctions with the most bids, by window of ten seconds every two.
SELECT start, bids, auction
FROM (
    SELECT bid.date_time // 2000 * 2000 - hop AS start, count(*) AS bids, auction
    FROM bid, (SELECT unnest([0, 2000, 4000, 6000, 8000]) AS hop)
    GROUP BY ALL
)
WHERE start >= 0
QUALIFY bids = max(bids) OVER (PARTITION BY start)
