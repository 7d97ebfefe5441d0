ok 1
  pass|husk smoke --case plain/cpus=2 boot.yaml
ok 2
  pass|husk smoke -k bzImage
not ok 3
  detected|husk smoke -k bzImage -a 'init=/bin/false "x" | y'
  hang|
not ok 4
  hang|husk smoke -k bzImage
  |
not ok 5
  fail|husk smoke -k bzImage kunit
  fail|
not ok 6
  fail|husk smoke -k bzImage
not ok 7
  infrastructure|husk smoke -k missing
not ok 8
  vmm|husk smoke -k broken
ok 9 skip
  skipped|husk smoke -k bzImage
planned 9 run 9 errors 0
