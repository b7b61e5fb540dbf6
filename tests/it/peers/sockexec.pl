# A client of an exec door, as the Perl examples of sockexec speak to it: SOCKET ARGV...
# Standard input goes along; what the program writes comes out on the same two streams, and its status is this one's.
use strict;
use warnings;
use Socket;

$SIG{PIPE} = 'IGNORE';

my ($path, @argv) = @ARGV;
socket(my $server, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
connect($server, sockaddr_un($path)) or die "connect: $!\n";
$server->autoflush(1);

sub netstring { return length($_[0]) . ":$_[0]," }

print $server map { netstring($_) } scalar(@argv), @argv;
while (sysread(STDIN, my $input, 65536)) {
    print $server netstring($input);
}
print $server netstring('');

sub next_string {
    my ($length, $byte) = ('');
    while (read($server, $byte, 1)) {
        last if $byte eq ':';
        $length .= $byte;
    }
    return undef if $length eq '';
    read($server, my $data, $length) == $length or die "cut off\n" if $length;
    read($server, $byte, 1) and $byte eq ',' or die "no comma\n";
    return $length ? $data : '';
}

my $status = 255;
while (defined(my $type = next_string())) {
    my $data = next_string();
    if    ($type eq 'stdout')   { syswrite(STDOUT, $data) }
    elsif ($type eq 'stderr')   { syswrite(STDERR, $data) }
    elsif ($type eq 'exitcode') { $status = $data }
    elsif ($type eq 'termsig')  { syswrite(STDERR, "// killed by signal $data\n"); $status = 254 }
    else                        { die "a pair of type $type\n" }
}
exit $status;
