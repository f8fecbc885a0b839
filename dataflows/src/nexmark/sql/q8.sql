-- New persons who opened auctions in the same window of ten seconds.
SELECT person.id, person.date_time // 10000 * 10000 AS start, name
FROM person
WHERE EXISTS (FROM auction WHERE seller = person.id AND auction.date_time // 10000 = person.date_time // 10000)
