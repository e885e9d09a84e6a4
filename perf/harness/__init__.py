"""The research harness: scenarios, the runs made of them, and what a run leaves in its folder.

From the file to the folder: `scenario` (what shall happen), `draws` (what chance decides), `actor` and
`client` (who does it, in processes of their own), `outside`, `inside` and `cgroup` (what is seen
meanwhile), `faults` (what goes wrong on purpose), `life` (the order of events), `folder` and `limits`
(what is written down and what makes it fail), `soak` and `slope` (leak or no leak).
"""
