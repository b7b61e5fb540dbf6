import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.Scanner;

/** Answers each line that it reads with its number and its bytes: `reader` or `scanner` says how it reads. */
public class Lines {
    private static int count = 0;

    private static void answer(String line) {
        count++;
        System.out.println(count + ":" + HexFormat.of().formatHex(line.getBytes(StandardCharsets.UTF_8)));
        System.out.flush();
    }

    public static void main(String[] how) throws Exception {
        if (how[0].equals("scanner")) {
            Scanner scanner = new Scanner(System.in, StandardCharsets.UTF_8);
            while (scanner.hasNextLine()) {
                answer(scanner.nextLine());
            }
        } else {
            var reader = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line; (line = reader.readLine()) != null;) {
                answer(line);
            }
        }
    }
}
