-- Sessions of bidders, ten seconds apart.
SELECT bidder, min(date_time) AS start, max(date_time) + 10000 AS "end", count(*) AS bids
FROM (
    SELECT bidder, date_time, sum(CASE WHEN gap <= 10000 THEN 0 ELSE 1 END) OVER (PARTITION BY bidder ORDER BY date_time) AS session
    FROM (SELECT bidder, date_time, date_time - lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time) AS gap FROM bid)
)
GROUP BY bidder, session
