# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_hako_global_optspecs
    string join \n json q/quiet v/verbose progress= h/help V/version
end

function __fish_hako_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_hako_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_hako_using_subcommand
    set -l cmd (__fish_hako_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c hako -n "__fish_hako_needs_command" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_needs_command" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_needs_command" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_needs_command" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_needs_command" -s V -l version -d 'Print version'
complete -c hako -n "__fish_hako_needs_command" -f -a "disk" -d 'Work with disk images'
complete -c hako -n "__fish_hako_needs_command" -f -a "vm" -d 'Work with virtual machines: what they are made of, and running them'
complete -c hako -n "__fish_hako_needs_command" -f -a "snapshot" -d 'Keep states of a virtual machine that is off, and go back to them'
complete -c hako -n "__fish_hako_needs_command" -f -a "p2v" -d 'Turn servers into virtual machines'
complete -c hako -n "__fish_hako_needs_command" -f -a "backup" -d 'Back machines up'
complete -c hako -n "__fish_hako_needs_command" -f -a "completions" -d 'Print the completions of a shell'
complete -c hako -n "__fish_hako_needs_command" -f -a "man" -d 'Write the manual pages'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "formats" -d 'List the disk formats and what can be done with each'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "info" -d 'Show what an image is: format, sizes, parent, and what is odd about it'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "create" -d 'Create an empty image, or an overlay over a parent'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "convert" -d 'Convert an image into another format'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "check" -d 'Check the structure of an image'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "compare" -d 'Compare the content of two images'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "map" -d 'Show the extents of an image: data, zeros and holes, and where they are stored'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "hash" -d 'Print the SHA-256 of the content of a disk'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "ls" -d 'List the volumes of a disk, or the files in one'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "cat" -d 'Print the content of a file in a guest'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "cp" -d 'Copy a file or a tree out of a guest'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "set" -d 'Change what an image says of itself'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "resize" -d 'Change the virtual size of an image in place'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "compact" -d 'Give back to the host what an image stores without need'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "commit" -d 'Write the content of an overlay into its parent'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "rebase" -d 'Give an overlay another parent, or none'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "rename" -d 'Rename an image in its folder, with all its files and every reference to it'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "delete" -d 'Delete an image with all its files'
complete -c hako -n "__fish_hako_using_subcommand disk; and not __fish_seen_subcommand_from formats info create convert check compare map hash ls cat cp set resize compact commit rebase rename delete serve" -f -a "serve" -d 'Serve a disk as a network block device (NBD)'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from formats" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from formats" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from formats" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from formats" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from formats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -l chain -d 'Show every layer of the chain, the top first'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l parent -d 'Make the new image an overlay on this one' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -s O -l to -d 'Format of the new image; by default what its extension says' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l subformat -d 'Variant of the format; `hako disk formats` lists them' -r -f -a "v3\t''
monolithicSparse\t''
twoGbMaxExtentSparse\t''
monolithicFlat\t''
twoGbMaxExtentFlat\t''
vmfs\t''
streamOptimized\t''
dynamic\t''
fixed\t''
differencing\t''
diff\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l allocation -d 'How much space to take at once' -r -f -a "thin\t''
lazy\t''
eager\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l unit -l grain-size -l cluster-size -l block-size -d 'Allocation unit: the grain of a VMDK, the cluster of a qcow2, the block of the others' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l compression -d 'How to compress, in a format that can' -r -f -a "none\t''
zlib\t''
zstd\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l level -d 'Compression level, in the codec\'s own scale' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l sector-size -d 'Size of a sector as the guest sees it, in a VHDX: 512 or 4096' -r -f -a "512\t''
4096\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l adapter -d 'Disk controller that a VMDK names' -r -f -a "lsilogic\t''
buslogic\t''
ide\t''
legacyESX\t''
pvscsi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l hw-version -d 'Virtual hardware version that a VMDK names' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l force -d 'Replace an existing file'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l layer -d 'Convert this layer alone: 0 is the image itself, 1 its parent, and so on' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l parent -d 'Make the new image an overlay on this one' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l rate -d 'Write at most this many bytes of data per second' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -s O -l to -d 'Format of the new image; by default what its extension says' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l subformat -d 'Variant of the format; `hako disk formats` lists them' -r -f -a "v3\t''
monolithicSparse\t''
twoGbMaxExtentSparse\t''
monolithicFlat\t''
twoGbMaxExtentFlat\t''
vmfs\t''
streamOptimized\t''
dynamic\t''
fixed\t''
differencing\t''
diff\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l allocation -d 'How much space to take at once' -r -f -a "thin\t''
lazy\t''
eager\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l unit -l grain-size -l cluster-size -l block-size -d 'Allocation unit: the grain of a VMDK, the cluster of a qcow2, the block of the others' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l compression -d 'How to compress, in a format that can' -r -f -a "none\t''
zlib\t''
zstd\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l level -d 'Compression level, in the codec\'s own scale' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l sector-size -d 'Size of a sector as the guest sees it, in a VHDX: 512 or 4096' -r -f -a "512\t''
4096\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l adapter -d 'Disk controller that a VMDK names' -r -f -a "lsilogic\t''
buslogic\t''
ide\t''
legacyESX\t''
pvscsi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l hw-version -d 'Virtual hardware version that a VMDK names' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l verify -d 'Read the new image back and compare before it gets its name'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l force -d 'Replace an existing file'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from convert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -s r -l repair -d 'Mend the image: leaks gives space back, all mends what needs no guessing, too' -r -f -a "leaks\t''
all\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -l undo -d 'Put back what a repair overwrote and saved in SAVED, and check nothing' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -l data -d 'Read all data too, and unpack what is compressed'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -l chain -d 'Check every layer of the chain, not only the image itself'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -s F -l from-b -d 'Format of the second image, if --from is only that of the first' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -l snapshot -d 'Compare an internal snapshot (qcow2) of the first image, by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -l snapshot-b -d 'Compare an internal snapshot (qcow2) of the second image, by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -l strict -d 'The sizes must be the same too, and what is stored (not only what it reads as)'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compare" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from map" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from hash" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l with -d 'Look at this image too (repeatable)' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l sector-size -d 'Size of a sector as the guest sees it, where the image does not say: 512 or 4096' -r -f -a "512\t''
4096\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l key -d 'Open LUKS by the passphrase or key in FILE (repeatable); - asks for it, or reads standard input' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -s l -l long -d 'Show type and mode, links, owner, group, length, time, and where links lead'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -s R -l recursive -d 'List what is in directories below, too, by their paths'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l with -d 'Look at this image too (repeatable)' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l sector-size -d 'Size of a sector as the guest sees it, where the image does not say: 512 or 4096' -r -f -a "512\t''
4096\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l key -d 'Open LUKS by the passphrase or key in FILE (repeatable); - asks for it, or reads standard input' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cat" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l with -d 'Look at this image too (repeatable)' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l sector-size -d 'Size of a sector as the guest sees it, where the image does not say: 512 or 4096' -r -f -a "512\t''
4096\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l key -d 'Open LUKS by the passphrase or key in FILE (repeatable); - asks for it, or reads standard input' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -s r -l recursive -d 'Copy a directory with all that is in it'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l owner -d 'Keep owner and group, and with them the set-id bits; needs root'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l force -d 'Replace files that exist; into a directory that exists a tree is merged'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from cp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l adapter -d 'Disk controller that a VMDK names' -r -f -a "lsilogic\t''
buslogic\t''
ide\t''
legacyESX\t''
pvscsi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l hw-version -d 'Virtual hardware version that a VMDK names' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l tools-version -d 'Version of VMware Tools that a VMDK names' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l uuid -d 'What the disk is known by' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l comment -d 'A comment; empty removes it' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l force -d 'Change the UUID though an overlay or a linked clone knows the image by it: VHD and VDI'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -l shrink -d 'Let the disk become smaller, if what is cut is zeros'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -l cut-data -d 'Cut data, too: it is lost'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -l force -d 'Do it though an overlay, a snapshot or a linked clone needs it as it is'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from resize" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compact" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compact" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compact" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compact" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compact" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compact" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compact" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from compact" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -l keep -d 'Leave the overlay as it is'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -l delete -d 'Delete the overlay'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -l force -d 'Do it though overlays, snapshots or linked clones need the parent: their content changes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from commit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -s b -l parent -d 'Its new parent' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -s F -l parent-format -d 'Format of the new parent, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -l no-parent -d 'Store everything in the image itself'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -s u -l unsafe -d 'Only rewrite the link: you know that the new parent has the content of the old one'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rebase" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rename" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rename" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rename" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rename" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rename" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rename" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rename" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from rename" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -l force -d 'Do it though an overlay, a snapshot or a linked clone needs it'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l socket -d 'Listen on a Unix socket of this name' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l bind -d 'Listen on this IP address' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l port -d 'Listen on this TCP port; 0 is any free one [default: 10809]' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l export-name -d 'Name of the export; clients that ask for no name get it too' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l max-clients -d 'Clients at the same time; one more is turned away' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l pid-file -d 'Write the process ID to this file while serving' -r -F
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l writable -d 'Let clients write'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l once -d 'End when the last client is gone, after one has come'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand disk; and __fish_seen_subcommand_from serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "create" -d 'Create a virtual machine'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "list" -d 'List the virtual machines of the inventory'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "info" -d 'Show what a virtual machine is made of, its disks, its snapshots and its state'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "set" -d 'Change what a virtual machine is made of, or any key of its VMX'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "register" -d 'List a machine that exists in the inventory'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "unregister" -d 'Take a machine out of the inventory; its files stay'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "import" -d 'Import a machine: an OVA, an OVF, another product\'s folder, or a disk'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "export" -d 'Export a machine as an OVA, an OVF, or a folder for another product'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "clone" -d 'Clone a machine: another one with the same content'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "rename" -d 'Rename a machine: display name, folder, files, and every reference to them'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "delete" -d 'Delete a machine with its files'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "start" -d 'Start a machine'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "stop" -d 'Ask a guest to shut down, and wait until the machine is off'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "reset" -d 'Reset a machine that runs'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "pause" -d 'Stop the virtual CPUs of a machine that runs'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "unpause" -d 'Let a machine go on that was paused'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "console" -d 'Connect to the console of a machine that runs: its first serial port'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "wait" -d 'Wait until a machine is off, or until something else comes'
complete -c hako -n "__fish_hako_using_subcommand vm; and not __fish_seen_subcommand_from create list info set register unregister import export clone rename delete start stop reset pause unpause console wait stats" -f -a "stats" -d 'Show what a machine that runs has used: CPU time, memory, disks and network'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l cpus -d 'Virtual processors, and how many of them share a socket' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l memory -d 'Memory, a multiple of 4 MiB' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l guest-os -d 'The guest system, by its VMX name: ubuntu-64, windows2019srv-64, other-64' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l firmware -d 'What starts the guest' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l hardware-version -d 'VMware\'s virtual hardware version' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l annotation -d 'A note' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l folder -d 'The machine\'s folder, instead of vms/NAME in the home of machines' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l from-disk -d 'Make a disk of an image (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l disk -d 'Add an empty disk (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l nic -d 'Add a network card (repeatable); none for a machine without. By default: nat' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l cdrom -d 'Put a CD image into a drive (repeatable); used where it is' -r -F
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l cloud-init -d 'Give cloud-init a seed: a file with user-data, or a folder' -r -F
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l kernel -d 'Start this kernel without firmware; copied into the machine\'s folder' -r -F
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l initrd -d 'The kernel\'s initial file system' -r -F
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l cmdline -d 'The kernel\'s command line' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l allow-path -d 'Let the machine and its images name files below DIR, now and later (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from list" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from list" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from info" -l allow-path -d 'Let the machine and its images name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from info" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from info" -l guest -d 'Look at what is on its disks, too; it must be off'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from info" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from info" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from info" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l unset -d 'Remove a key of the VMX (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l cpus -d 'Virtual processors, and how many of them share a socket' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l memory -d 'Memory, a multiple of 4 MiB' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l guest-os -d 'The guest system, by its VMX name' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l firmware -d 'What starts the guest' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l boot-order -d 'What the guest starts from, first to last: hdd, cdrom, ethernet0, floppy' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l annotation -d 'The note; empty removes it' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l add-disk -d 'Add an empty disk (repeatable); keys as of create --disk' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l attach-disk -d 'Add a disk with this image, used where it is (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l remove-disk -d 'Take away the drive at a node: scsi0:1 (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l add-nic -d 'Add a network card (repeatable); as of create --nic' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l remove-nic -d 'Take away the network card of this number (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l cdrom -d 'Put an image into the first CD drive, or that at NODE; none empties it' -r -F
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l cpu-reservation -d 'Processor time that is kept for the machine, in MHz' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l cpu-limit -d 'Processor time that it never gets more than, in MHz; none for no limit' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l cpu-shares -d 'Its weight against others: low, normal, high or a number' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l memory-reservation -d 'Memory that is kept for the machine' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l memory-limit -d 'Memory of the host\'s that it never gets more than; none for no limit' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l memory-shares -d 'Its weight against others: low, normal, high or a number' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l allow-path -d 'Let the machine and its images name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l delete-file -d 'Delete the images of disks that are taken away'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from register" -l name -d 'Give it this display name' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from register" -l allow-path -d 'Let the machine and its images name files below DIR, now and later (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from register" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from register" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from register" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from register" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from register" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unregister" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unregister" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unregister" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unregister" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unregister" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l name -d 'Name of the new machine; by default the one it has' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l to -d 'Its folder; by default one of its name where machines live' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l system -d 'Which machine of a package with several, by its id' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l deployment -d 'Which of the sizes that a package offers' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l prop -d 'Value of a property that decides the size of a disk (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l network -d 'Plug what is in a package\'s network into another (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l guest-os -d 'The guest system of a disk by itself, by its VMX name' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l format -d 'Format of the new disks' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l subformat -d 'Variant of the format; `hako disk formats` lists them' -r -f -a "v3\t''
monolithicSparse\t''
twoGbMaxExtentSparse\t''
monolithicFlat\t''
twoGbMaxExtentFlat\t''
vmfs\t''
streamOptimized\t''
dynamic\t''
fixed\t''
differencing\t''
diff\t''"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l rate -d 'Write at most this many bytes of data per second' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l list -d 'Show what there is to choose from, and import nothing'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l accept-eula -d 'Agree to the licences of a package'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l verify -d 'Read each new disk back and compare before anything gets its name'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l for -d 'Make a folder as this product keeps its machines' -r -f -a "workstation\t'Workstation and Fusion: a .vmx and sparse disks'
esxi\t'ESXi: a .vmx and flat disks'
libvirt\t'libvirt: a domain\'s XML and qcow2 disks'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l snapshot -d 'Take this snapshot, by name or number, even while the machine runs' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l manifest -d 'Digest of the files in the manifest of an OVA or OVF' -r -f -a "sha1\t''
sha256\t''
sha512\t''
none\t''"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l level -d 'Compression level of the disks of an OVA or OVF: 0 to 12' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l rate -d 'Write at most this many bytes of data per second' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l verify -d 'Read what was written back before it gets its name'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l force -d 'Replace an existing file'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l snapshot -d 'Clone this snapshot, by name, path or number; without --linked even while the machine runs' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l folder -d 'The new machine\'s folder, instead of vms/NEW in the home of machines' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l format -d 'Format of the new disks, instead of those that they have' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l subformat -d 'Variant of that format; `hako disk formats` lists them' -r -f -a "v3\t''
monolithicSparse\t''
twoGbMaxExtentSparse\t''
monolithicFlat\t''
twoGbMaxExtentFlat\t''
vmfs\t''
streamOptimized\t''
dynamic\t''
fixed\t''
differencing\t''
diff\t''"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l rate -d 'Write at most this many bytes of data per second' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l allow-path -d 'Let the machine and its images name files below DIR, and the clone, too (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l linked -d 'Make the disks overlays on what a snapshot holds, instead of copies'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l verify -d 'Read each new disk back and compare before anything gets its name'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from clone" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from rename" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from rename" -l only-name -d 'Change the display name alone'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from rename" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from rename" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from rename" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from rename" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from delete" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from delete" -l yes -d 'Do it'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from delete" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from delete" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from delete" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l engine -d 'What runs it' -r -f -a "auto\t'hako\'s own if it can do all that the machine asks for here, else QEMU'
kvm\t'hako\'s own, on KVM: virtio disks and network cards, the first serial port; no CD drives, no screen, no firmware'
qemu\t'QEMU'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l boot -d 'How it boots; else by the kernel that its VMX names, by its firmware under QEMU, and directly under KVM' -r -f -a "firmware\t'By its firmware, or the kernel that its VMX names'
direct\t'By the kernel in its own disk, as its boot loader would'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l boot-entry -d 'Boot the entry of this number, from 0 on, of its boot loader\'s menu directly' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l kernel -d 'Boot this kernel (bzImage or ELF)' -r -F
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l initrd -d 'The initrd of --kernel' -r -F
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l cmdline -d 'The command line of --kernel' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l cdrom -d 'Put this image into its first CD drive for this run (repeatable: the next drive)' -r -F
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l allow-path -d 'Let the machine and its images name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l attach -d 'Stay, connected to its console, until it is off'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l discard-writes -d 'Let nothing that the guest writes reach its disks'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stop" -l timeout -d 'How long the guest may take to shut down [default: 120, with --force 0]' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stop" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stop" -l force -d 'Switch it off: at once, or after the time of --timeout'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stop" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stop" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stop" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from reset" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from reset" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from reset" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from reset" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from reset" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from pause" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from pause" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from pause" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from pause" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unpause" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unpause" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unpause" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unpause" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from unpause" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from console" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from console" -l replay -d 'Show first what the guest has written since it was started'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from console" -l log -d 'Only show what the guest has written, in this run or, if it is off, in its last one'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from console" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from console" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from console" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from console" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -l state -d 'Wait for this state' -r -f -a "stopped\t'It is off'
running\t'Its virtual CPUs run'
paused\t'They stand still'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -l for-line -d 'Wait for a line on the console that has this text in it' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -l timeout -d 'Give up after this time' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -l regex -d 'The text of --for-line is a regular expression'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -l for-ip -d 'Wait until a network card of the guest uses an address'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stats" -l interval -d 'Show it again and again, what was used meanwhile a second' -r
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stats" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stats" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stats" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stats" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand vm; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -f -a "create" -d 'Take a snapshot: keep the present state of disks and hardware'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -f -a "list" -d 'List the snapshots of a machine'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -f -a "revert" -d 'Go back to a snapshot: its disks and its hardware'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -f -a "delete" -d 'Delete snapshots; the machine\'s present state stays as it is'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -f -a "consolidate" -d 'Merge overlays that no snapshot needs any more'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and not __fish_seen_subcommand_from create list revert delete consolidate doctor" -f -a "doctor" -d 'Look what is wrong with a machine\'s snapshots, and mend what is safe to mend'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l description -d 'A note to keep with it' -r
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from create" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from create" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from list" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from list" -l tree -d 'Show which was taken on which'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from list" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l yes -d 'Throw away what was written since the last snapshot'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l save-first -d 'Keep what was written since the last snapshot in a new one'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l discard-memory -d 'Of a snapshot with the memory of a running machine, go back to its disks alone'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l children -d 'Delete those that were taken on it, too'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l all -d 'Delete all snapshots'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l yes -d 'Do it'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from consolidate" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from consolidate" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from consolidate" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from consolidate" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from consolidate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from doctor" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from doctor" -l repair -d 'Mend what is safe to mend'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from doctor" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from doctor" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from doctor" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand snapshot; and __fish_seen_subcommand_from doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -f -a "inventory" -d 'Say what a server is made of and runs, and what stands in the way of moving it'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -f -a "sample" -d 'Sample what this server uses, as the base of a plan'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -f -a "plan" -d 'Propose what a server becomes: sizes, disks, network cards, and what stands in the way'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -f -a "capture" -d 'Copy a disk that nobody writes to: only the blocks in use'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -f -a "adapt" -d 'Fit a copy of a server to the hardware of a virtual machine, offline'
complete -c hako -n "__fish_hako_using_subcommand p2v; and not __fish_seen_subcommand_from inventory sample plan capture adapt verify" -f -a "verify" -d 'Check a machine that a server became: its file systems, and a boot'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l root -d 'Look at the system whose /proc, /sys, /dev and /etc are below this folder' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l guest-sector-size -d 'Size of a sector as the guest sees it, where an image does not say: 512 or 4096' -r -f -a "512\t''
4096\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l key -d 'Open LUKS by the passphrase or key in FILE (repeatable); - asks for it, or reads standard input' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l deep -d 'Look into the initrds of all kernels, and of images at what of each volume is in use'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from inventory" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -l interval -d 'The time between samples: 15s, 500ms, 1m [default: 15s]' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -l for -d 'How long to sample: 7d, 12h [default: 7d]' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -l out -d 'The file [default: HOST.samples]' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -l root -d 'Look at /proc and /sys below DIR instead of this system\'s' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -l endless -d 'Go on after that time, until stopped: new samples replace the oldest'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from sample" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l inventory -d 'The server\'s inventory, - for standard input' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l history -d 'What the server used (repeatable): a file of hako p2v sample, or of sysstat, atop or collectl' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l target -d 'Where the machine will run' -r -f -a "vmware\t''
kvm\t''
qemu\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l size -d 'How large it is to be: measured, as-is, or CPUS, MEMORY, or CPUS,MEMORY' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l name -d 'The machine\'s name; by default the server\'s' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l network -d 'What a card is plugged into (repeatable): bridged, nat, hostonly, a port group' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -s o -l output -d 'Write the plan to FILE, and show a summary; by default it is printed' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l check -d 'Look at a plan that was edited, with --inventory also at what does not go with the server' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l keep-mirrors -d 'Take both sides of a mirror (RAID1), instead of one'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l force -d 'Replace FILE'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -s o -l output -d 'The new image: a file, a block device, or - for standard output' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l plan -d 'Make the whole machine of this plan of hako p2v plan: its .vmx, and a copy of each disk it keeps' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l name -d 'The machine\'s name, instead of the plan\'s' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l folder -d 'The machine\'s folder, instead of one of its name where machines live' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l with -d 'Another disk of the machine, to understand this one by (repeatable)' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l guest-sector-size -d 'Size of a sector as the guest sees it, where the disk does not say: 512 or 4096' -r -f -a "512\t''
4096\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l rate -d 'Write at most this many bytes of data per second' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l key -d 'Open LUKS by the passphrase or key in FILE (repeatable); - asks for it, or reads standard input' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -s O -l to -d 'Format of the new image; by default what its extension says' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l subformat -d 'Variant of the format; `hako disk formats` lists them' -r -f -a "v3\t''
monolithicSparse\t''
twoGbMaxExtentSparse\t''
monolithicFlat\t''
twoGbMaxExtentFlat\t''
vmfs\t''
streamOptimized\t''
dynamic\t''
fixed\t''
differencing\t''
diff\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l allocation -d 'How much space to take at once' -r -f -a "thin\t''
lazy\t''
eager\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l unit -l grain-size -l cluster-size -l block-size -d 'Allocation unit: the grain of a VMDK, the cluster of a qcow2, the block of the others' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l compression -d 'How to compress, in a format that can' -r -f -a "none\t''
zlib\t''
zstd\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l level -d 'Compression level, in the codec\'s own scale' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l sector-size -d 'Size of a sector as the guest sees it, in a VHDX: 512 or 4096' -r -f -a "512\t''
4096\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l adapter -d 'Disk controller that a VMDK names' -r -f -a "lsilogic\t''
buslogic\t''
ide\t''
legacyESX\t''
pvscsi\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l hw-version -d 'Virtual hardware version that a VMDK names' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l snapshot -d 'Show an internal snapshot (qcow2), by name or ID' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l all-blocks -d 'Copy all blocks, whether they are in use or not'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l keep-swap-files -d 'Copy the content of pagefile.sys, swapfile.sys and hiberfil.sys, too'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l no-verify -d 'Do not read the new image back before it gets its name'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l force -d 'Replace an existing file'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l salvage -d 'Open a damaged or truncated image as far as it goes'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from capture" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l target -d 'Where the machine will run' -r -f -a "vmware\t''
kvm\t''
qemu\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l with -d 'Its other disks, if images are given (repeatable)' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l nic -d 'Keep the name of the network card with this address (repeatable)' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l inventory -d 'Keep the names of network cards that the server\'s inventory tells' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l key -d 'Open LUKS by the passphrase or key in FILE (repeatable); - asks for it, or reads standard input' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l dry-run -d 'Show every change, and do nothing'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l serial-console -d 'Make the first serial port a console, too'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l mask-agents -d 'Mask services that are about a server\'s own hardware: IPMI, SMART, vendors\' agents'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l undo -d 'Put back what was there, but for what the guest has changed since'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from adapt" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -l inventory -d 'What the server was: what `hako p2v inventory --json` wrote there (- for standard input)' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -l boot -d 'How it boots; else by the kernel that its VMX names, or its firmware' -r -f -a "firmware\t'By its firmware, or the kernel that its VMX names'
direct\t'By the kernel in its own disk, as its boot loader would'"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -l timeout -d 'How long it may take to come up' -r
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -s o -l out -d 'Keep the report here instead of beside the machine' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -l key -d 'Open LUKS by the passphrase or key in FILE (repeatable); - asks for it, or reads standard input' -r -F
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -l no-boot -d 'Check file systems only'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand p2v; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand backup; and not __fish_seen_subcommand_from export" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand backup; and not __fish_seen_subcommand_from export" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand backup; and not __fish_seen_subcommand_from export" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand backup; and not __fish_seen_subcommand_from export" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand backup; and not __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand backup; and not __fish_seen_subcommand_from export" -f -a "export" -d 'Back a machine up as one file, an OVA'
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -s o -l output -d 'Where the backup goes: a file, a folder that exists, or - for standard output' -r -F
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l keep -d 'Keep so many backups of the machine in the folder' -r
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l snapshot -d 'Take this snapshot, by name or number, even while the machine runs' -r
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l manifest -d 'Digest of the files in the manifest of an OVA or OVF' -r -f -a "sha1\t''
sha256\t''
sha512\t''
none\t''"
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l level -d 'Compression level of the disks of an OVA or OVF: 0 to 12' -r
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l rate -d 'Write at most this many bytes of data per second' -r
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l threads -d 'How many threads read and compress; by default as many as the machine has processors' -r
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -s f -l from -d 'Format of the image, instead of finding it out' -r -f -a "raw\t''
qcow2\t''
vmdk\t''
vhdx\t''
vhd\t''
vdi\t''"
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l allow-path -d 'Let the image name files below DIR (repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l verify -d 'Read what was written back before it gets its name'
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l force -d 'Replace an existing file'
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l allow-devices -d 'Let the image name block devices'
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -s U -l force-share -d 'Open without locks, even if the image is in use'
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand backup; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand completions" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand completions" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand completions" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand completions" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hako -n "__fish_hako_using_subcommand man" -l progress -d 'How to show progress' -r -f -a "auto\t'A bar on a terminal, nothing otherwise'
plain\t'A line on standard error now and then'
json\t'One JSON object per line on standard error'
none\t'Nothing'"
complete -c hako -n "__fish_hako_using_subcommand man" -l json -d 'Print results as JSON'
complete -c hako -n "__fish_hako_using_subcommand man" -s q -l quiet -d 'Say nothing but results and errors'
complete -c hako -n "__fish_hako_using_subcommand man" -s v -l verbose -d 'Say more'
complete -c hako -n "__fish_hako_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
